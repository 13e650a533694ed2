"""Finding, loading and describing plugins.

Invariant: whatever one plugin does wrong is recorded under its name and harms nobody else; listing names imports
nothing heavy.
"""
