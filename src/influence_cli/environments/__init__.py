"""Environments: finding, loading, checking, rendering and sampling them.

Invariant: what loads renders. Every template is checked against every scenario, population and initial state before a
conversation begins.
"""
