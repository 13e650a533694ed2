"""``sweep.db``: one row a trial, each written whole; the sweep's memory, whatever its searcher remembers.

Invariant: a row is replaced in one transaction, so that whoever reads it after a kill finds a trial before or after a
change, never between.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import orjson

from influence_cli.errors import InfluenceError
from influence_cli.schemas.sweeps import TrialRecord
from influence_cli.store.connection import connect, explained

DATABASE = "sweep.db"
SCHEMA_VERSION = 1
_APPLICATION_ID = 0x696E6677  # "infw"
_TABLE = """
CREATE TABLE IF NOT EXISTS trial (
  number INTEGER PRIMARY KEY,
  state TEXT NOT NULL,
  reason TEXT NOT NULL,
  parameters TEXT NOT NULL,
  readings TEXT NOT NULL,
  steps TEXT NOT NULL,
  started REAL NOT NULL,
  finished REAL,
  tokens INTEGER NOT NULL,
  cost REAL
)
"""
_COLUMNS = ("number", "state", "reason", "parameters", "readings", "steps", "started", "finished", "tokens", "cost")
_JSON = ("parameters", "readings", "steps")
_SAVE = (
    "REPLACE INTO trial (number, state, reason, parameters, readings, steps, started, finished, tokens, cost)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


class TrialStore:
    """The trials of a sweep; use as a context manager. One process writes, any number read."""

    def __init__(self, folder: Path, *, write: bool) -> None:
        self._path = folder / DATABASE
        self._connection: sqlite3.Connection | None = None
        if not write and not self._path.is_file():
            return
        self._connection = connect(self._path, write=write)
        try:
            with explained(self._path):
                self._prepare(self._connection, write=write)
        except BaseException:
            self._connection.close()
            raise

    def _prepare(self, connection: sqlite3.Connection, *, write: bool) -> None:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA_VERSION:
            raise InfluenceError(
                f"{self._path} was made by a newer version of this program (schema {version}).",
                hint="Upgrade: pip install -U influence-cli.",
            )
        if write and version == 0:
            with connection:
                connection.execute("BEGIN")
                connection.execute(_TABLE)
                connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
                connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._connection is not None:
            self._connection.close()

    def trials(self) -> list[TrialRecord]:
        """Return every trial, by number; none where none has begun."""
        if self._connection is None:
            return []
        with explained(self._path):
            rows = self._connection.execute("SELECT name FROM sqlite_master WHERE name = 'trial'").fetchall()
            found = self._connection.execute("SELECT * FROM trial ORDER BY number").fetchall() if rows else []
        return [_record(row) for row in found]

    def save(self, trial: TrialRecord) -> None:
        """Keep ``trial`` in place of what was known of it."""
        assert self._connection is not None
        data: dict[str, Any] = trial.model_dump(mode="json")
        values = [orjson.dumps(data[name]).decode() if name in _JSON else data[name] for name in _COLUMNS]
        with explained(self._path):
            self._connection.execute(_SAVE, values)


def _record(row: sqlite3.Row) -> TrialRecord:
    data = {name: orjson.loads(row[name]) if name in _JSON else row[name] for name in _COLUMNS}
    return TrialRecord.model_validate(data)
