"""The run directory: ``run.yaml`` and the SQLite file ``run.db``.

Invariant: one process writes, any number read; what a writing method returned from survives ``kill -9``.
"""
