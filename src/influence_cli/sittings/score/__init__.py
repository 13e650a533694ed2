"""Sittings of scoring."""
