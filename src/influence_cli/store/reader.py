"""Reading a run, also while it is written: trajectories one by one, and what the tables add up to."""

from __future__ import annotations

import sqlite3
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import orjson

from influence_cli.errors import InfluenceError
from influence_cli.schemas.messages import ROLES
from influence_cli.store.connection import connect, explained
from influence_cli.store.run_directory import RunDirectory, lock_holder, shard_files
from influence_cli.store.schema import SCHEMA_VERSION, check_version, is_empty

_BATCH = 200

_TRAJECTORIES = (
    "SELECT e.*, t.status, t.reason, t.state, t.turns, t.mean_rating, t.final_rating, t.mean_veto, t.unusable,"
    " t.failure, t.detail FROM episode e JOIN trajectory t ON t.episode_id = e.id WHERE e.id > ?"
    " AND e.iteration = coalesce(?, e.iteration) AND e.split = coalesce(?, e.split) ORDER BY e.id LIMIT ?"
)


class RunReader:
    """A run opened for reading; use as a context manager."""

    def __init__(self, directory: RunDirectory) -> None:
        self.directory = directory
        path = directory.database
        if not path.is_file():
            raise _nothing_yet(directory)
        self._connection = connect(path, write=False)
        try:
            with explained(path):
                if is_empty(self._connection):
                    raise _nothing_yet(directory)
                version = check_version(self._connection, path)
            if version < SCHEMA_VERSION:
                raise outdated(directory, version)
        except BaseException:
            self._connection.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    @property
    def path(self) -> Path:
        """The run's directory."""
        return self.directory.path

    def rows(self, sql: str, values: tuple[Any, ...] = ()) -> list[sqlite3.Row]:
        """Return the rows of a query."""
        with explained(self.directory.database):
            return self._connection.execute(sql, values).fetchall()

    def column(self, sql: str, values: tuple[Any, ...] = ()) -> array[int]:
        """Return a query's first column, of whole numbers, at eight bytes each."""
        with explained(self.directory.database):
            cursor = self._connection.cursor()
            cursor.row_factory = None
            return array("q", (row[0] for row in cursor.execute(sql, values)))

    def interrupt(self) -> None:
        """Abort the query that another thread is in; it raises InfluenceError there."""
        self._connection.interrupt()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def state(self) -> str:
        """Return ``running`` while a process holds the run, else ``stopped``, ``done`` or ``failed``."""
        if lock_holder(self.directory.lock) is not None:
            return "running"
        row = self.rows("SELECT state FROM run WHERE id = 1")
        stored = str(row[0][0]) if row else "stopped"
        return "stopped" if stored == "running" else stored

    def trajectories(self) -> Iterator[dict[str, Any]]:
        """Yield every trajectory as the documented object ``influence.trajectory/1``, a few in memory at a time."""
        for _, trajectory in self.numbered():
            yield trajectory

    def trajectory(self, number: int) -> dict[str, Any]:
        """Return one trajectory as ``influence.trajectory/1``; InfluenceError if the run has none of that number."""
        with self._moment():
            rows = self.rows(_TRAJECTORIES, (number - 1, None, None, 1))
            if not rows or rows[0]["id"] != number:
                raise InfluenceError(f"There is no conversation {number} in {self.path}.")
            tables = (self._by_episode(table, number, number).get(number, []) for table in ("message", "judgement"))
            return _trajectory(rows[0], *tables)

    def numbered(
        self, *, finished: bool = False, iteration: int | None = None, split: str | None = None
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield every trajectory (only those that are complete, if ``finished``) with its number in the tables.

        ``iteration`` and ``split`` leave only theirs.
        """
        last = 0
        while True:
            with self._moment():
                batch = self.rows(_TRAJECTORIES, (last, iteration, split, _BATCH))
                if not batch:
                    return
                first, last = batch[0]["id"], batch[-1]["id"]
                messages = self._by_episode("message", first, last)
                judgements = self._by_episode("judgement", first, last)
            for row in batch:
                if not finished or row["status"] == "complete":
                    yield row["id"], _trajectory(row, messages.get(row["id"], []), judgements.get(row["id"], []))

    @contextmanager
    def _moment(self) -> Iterator[None]:
        """Let all queries of the block see the run as it is now, whatever is written meanwhile."""
        with explained(self.directory.database):
            self._connection.execute("BEGIN")
            try:
                yield
            finally:
                self._connection.execute("COMMIT")

    def _by_episode(self, table: str, first: int, last: int) -> dict[int, list[sqlite3.Row]]:
        kept = "dropped = 0 AND " if table == "message" else ""
        found = self.rows(
            f"SELECT * FROM {table} WHERE {kept}episode_id BETWEEN ? AND ? ORDER BY episode_id, id",  # noqa: S608
            (first, last),
        )
        return {episode: list(group) for episode, group in groupby(found, key=lambda row: row["episode_id"])}


def outdated(directory: RunDirectory, version: int) -> InfluenceError:
    """Return what to say where the run's tables are of an older ``version``: whatever writes the run mends it."""
    command = directory.manifest.command
    again = "import FILE --out" if command == "import" else f"{command} --resume"
    return InfluenceError(
        f"{directory.database} was written by an older version (schema {version}).",
        hint=f"Bring it up to date: influence {again} {directory.path}.",
    )


def _nothing_yet(directory: RunDirectory) -> InfluenceError:
    """Return the error of a run without conversations, or whose conversations nobody has brought together yet."""
    if directory.shard is None and shard_files(directory):
        told = f"What {directory.path} holds is in its shards alone."
        return InfluenceError(told, hint=f"Bring it together: influence runs merge {directory.path}")
    return InfluenceError(f"{directory.path} holds no conversation yet.", hint="Take it up: --resume.")


def _trajectory(row: sqlite3.Row, messages: list[sqlite3.Row], judgements: list[sqlite3.Row]) -> dict[str, Any]:
    facts = ("iteration", "environment", "scenario", "initial_state", "sample", "population", "cue", "split", "seed")
    end = ("status", "reason", "state", "turns", "mean_rating", "final_rating", "mean_veto", "unusable", "failure")
    judged: dict[int, dict[str, Any]] = {}
    for judgement in judgements:
        judged.setdefault(judgement["turn"], {})[judgement["role"]] = _judgement(judgement)
    return {
        "schema": "influence.trajectory/1",
        **{name: row[name] for name in facts},
        "profile": orjson.loads(row["profile"]),
        **{name: row[name] for name in end},
        "detail": row["detail"],
        "messages": [_message(message) for message in messages],
        "judgements": [
            {"turn": turn, **{role: roles[role] for role in ROLES if role in roles}}
            for turn, roles in sorted(judged.items())
        ],
    }


def _message(row: sqlite3.Row) -> dict[str, Any]:
    return {
        "turn": row["turn"],
        "speaker": row["speaker"],
        "text": row["text"],
        "state": row["state"],
        "source": row["source"],
        "finish_reason": row["finish_reason"],
        "tool_calls": orjson.loads(row["tool_calls"]) if row["tool_calls"] else [],
        "tool_call_id": row["tool_call_id"],
        "outcome": row["outcome"],
    }


def _judgement(row: sqlite3.Row) -> dict[str, Any]:
    return {
        "choices": orjson.loads(row["choices"]),
        "probabilities": orjson.loads(row["probabilities"]),
        "expected": row["expected"],
        "mass": row["mass"],
        "method": row["method"],
        "draws": row["draws"],
        "outcome": row["outcome"],
        "usable": bool(row["usable"]),
    }
