"""Sittings of a sweep."""
