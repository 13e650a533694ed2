"""Writing a run: one method for each thing that happens.

Invariant: when a method returns, what it stored survives ``kill -9``; a message or judgement and the call that made it
are stored together or not at all.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import orjson

from influence_cli.errors import InfluenceError
from influence_cli.schemas.messages import Speaker
from influence_cli.schemas.records import (
    CallRecord,
    EpisodeKey,
    EpisodeProgress,
    EpisodeRecord,
    JudgementRecord,
    MessageRecord,
    RunState,
    ScoreRecord,
    Split,
    TrajectoryEnd,
)
from influence_cli.store import rows
from influence_cli.store.connection import connect, explained, store_error
from influence_cli.store.schema import create_tables, database_version, migrate

_Key = tuple[int, str, str, str, int]

_FINISH = (
    "UPDATE trajectory SET status = ?, reason = ?, state = ?, turns = ?, mean_rating = ?, final_rating = ?,"
    " mean_veto = ?, unusable = ?, failure = ?, detail = ?, finished = ? WHERE episode_id = ?"
)
_USED = "coalesce(sum((prompt_tokens + completion_tokens) * (1 - cached)), 0)"
_OF_SCORES = "(role IN ('judge', 'probe'))"
_TOTALS = (
    f"SELECT {_USED}, coalesce(sum(cost), 0.0), count(*), (SELECT avg(mean_rating) FROM trajectory"  # noqa: S608
    f" WHERE status = 'complete') FROM call WHERE ? OR NOT {_OF_SCORES}"
)
_TOKENS = (
    f"SELECT {_USED} FROM call JOIN episode e ON e.id = episode_id WHERE e.iteration = ?"  # noqa: S608
    f" AND e.split = coalesce(?, e.split) AND {_OF_SCORES} = ?"
)


@dataclass(frozen=True)
class Totals:
    """What a run has used, and how its complete conversations are rated: the mean over them of their mean over turns."""

    tokens: int
    cost: float
    calls: int
    mean_rating: float | None = None


def _key(key: EpisodeKey) -> _Key:
    return (key.iteration, key.environment, key.scenario, key.initial_state, key.sample)


def _end_row(end: TrajectoryEnd, now: float) -> tuple[Any, ...]:
    detail = rows.safe(end.detail) if end.detail else None
    values = (end.mean_rating, end.final_rating, end.mean_veto, end.unusable, end.failure, detail, now)
    return (end.status, end.reason, end.state, end.turns, *values)


class RunWriter:
    """The only writer of a run's database; use as a context manager. Not thread-safe."""

    def __init__(self, path: Path, run_id: str) -> None:
        self.path = path
        self._connection = connect(path, write=True)
        try:
            with explained(path):
                if database_version(self._connection) == 0:
                    create_tables(self._connection)
                else:
                    migrate(self._connection, path)
                with self._transaction():
                    self._connection.execute(
                        "INSERT OR IGNORE INTO run (id, run_id, state, created) VALUES (1, ?, 'running', ?)",
                        (run_id, time.time()),
                    )
                self._finished = self._read_finished()
        except BaseException:
            self._connection.close()
            raise
        self._opened = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- conversations ------------------------------------------------------------------------------------------------

    def is_finished(self, key: EpisodeKey) -> bool:
        """Return whether the conversation ended in an earlier sitting: within one, none is begun twice."""
        return _key(key) in self._finished

    def finished_count(self) -> int:
        """Return how many conversations ended in earlier sittings."""
        return len(self._finished)

    def open_episode(self, record: EpisodeRecord, opening: Sequence[MessageRecord]) -> int:
        """Store the conversation's beginning if it is new; return its identifier.

        Raises InfluenceError if it is there with another population, cue or seed: the run was made otherwise.
        """
        with self._transaction():
            cursor = self._connection.execute(rows.INSERT_EPISODE, rows.episode_row(record))
            if cursor.rowcount == 0:
                return self._known(record)
            episode_id = cursor.lastrowid or 0
            self._execute("INSERT INTO trajectory (episode_id, started) VALUES (?, ?)", (episode_id, time.time()))
            for message in opening:
                self._execute(rows.INSERT_MESSAGE, rows.message_row(episode_id, message))
        return episode_id

    def progress(self, episode_id: int) -> EpisodeProgress:
        """Return what is stored of the conversation, without dropped messages."""
        with explained(self.path):
            read = self._connection.execute
            messages = read("SELECT * FROM message WHERE dropped = 0 AND episode_id = ? ORDER BY id", (episode_id,))
            judgements = read("SELECT * FROM judgement WHERE episode_id = ? ORDER BY id", (episode_id,))
            calls = read("SELECT * FROM call WHERE episode_id = ? ORDER BY id", (episode_id,))
            return EpisodeProgress(
                messages=tuple(rows.read_message(row) for row in messages),
                judgements=tuple(rows.read_judgement(row) for row in judgements),
                calls=tuple(rows.read_call(row) for row in calls),
            )

    def add_message(self, episode_id: int, call: CallRecord | None, message: MessageRecord) -> int:
        """Store a message, with the call that made it; return its identifier."""
        if call is None:
            return self._insert(rows.INSERT_MESSAGE, rows.message_row(episode_id, message))
        with self._transaction():
            self._execute(rows.INSERT_CALL, rows.call_row(episode_id, call, time.time()))
            return self._insert(rows.INSERT_MESSAGE, rows.message_row(episode_id, message))

    def add_judgement(self, episode_id: int, call: CallRecord | None, judgement: JudgementRecord) -> int:
        """Store a judgement, with the call that made it; return its identifier."""
        if call is None:
            return self._insert(rows.INSERT_JUDGEMENT, rows.judgement_row(episode_id, judgement))
        with self._transaction():
            self._execute(rows.INSERT_CALL, rows.call_row(episode_id, call, time.time()))
            return self._insert(rows.INSERT_JUDGEMENT, rows.judgement_row(episode_id, judgement))

    def add_call(self, episode_id: int, call: CallRecord) -> int:
        """Store a call that gave nothing to keep; return its identifier."""
        return self._insert(rows.INSERT_CALL, rows.call_row(episode_id, call, time.time()))

    def drop_message(self, episode_id: int, turn: int, speaker: Speaker, state: str) -> None:
        """Mark what was said in this turn and state by a model, or a tool, as no part of the conversation."""
        self._execute(
            "UPDATE message SET dropped = 1 WHERE episode_id = ? AND turn = ? AND speaker = ? AND state = ?"
            " AND source != 'scenario'",
            (episode_id, turn, speaker, state),
        )

    def add_scores(
        self, scores: Sequence[tuple[int, ScoreRecord]], calls: Sequence[tuple[int, CallRecord]] = ()
    ) -> None:
        """Store scores by episode, with the calls that they took, all or none; a score that is there already gives way.

        The calls are numbered here, among those of their turn and role.
        """
        ended = time.time()
        with self._transaction():
            for episode_id, score in scores:
                self._execute(rows.INSERT_SCORE, rows.score_row(episode_id, score, ended))
            for episode_id, call in calls:
                taken = self._connection.execute(
                    "SELECT count(*) FROM call WHERE episode_id = ? AND turn = ? AND role = ?",
                    (episode_id, call.turn, call.role),
                ).fetchone()[0]
                numbered = call.model_copy(update={"ordinal": taken})
                self._execute(rows.INSERT_CALL, rows.call_row(episode_id, numbered, ended))

    def scored(self) -> set[tuple[int, int, str, str, str]]:
        """Return episode, turn, rubric's hash, judge and method of every score that did not fail."""
        with explained(self.path):
            found = self._connection.execute(
                "SELECT episode_id, turn, rubric_hash, judge, method FROM score WHERE failure IS NULL"
            )
            names: dict[str, str] = {}  # few different texts in many rows: each is kept once
            return {(row[0], row[1], *(names.setdefault(text, text) for text in row[2:])) for row in found}

    def finish(self, episode_id: int, end: TrajectoryEnd) -> None:
        """Store how the conversation ended."""
        with self._transaction():
            self._execute(_FINISH, (*_end_row(end, time.time()), episode_id))

    def add_conversation(
        self,
        record: EpisodeRecord,
        messages: Sequence[MessageRecord],
        judgements: Sequence[JudgementRecord],
        calls: Sequence[CallRecord],
        scores: Sequence[ScoreRecord],
        end: TrajectoryEnd,
    ) -> bool:
        """Store a finished conversation, all or nothing; return False if it is there already.

        Raises InfluenceError if it is there with another population, cue or seed.
        """
        now = time.time()
        with self._transaction():
            cursor = self._connection.execute(rows.INSERT_EPISODE, rows.episode_row(record))
            if cursor.rowcount == 0:
                self._known(record)
                return False
            i = cursor.lastrowid or 0
            self._execute("INSERT INTO trajectory (episode_id, started) VALUES (?, ?)", (i, now))
            many = self._connection.executemany
            many(rows.INSERT_MESSAGE, [rows.message_row(i, message) for message in messages])
            many(rows.INSERT_JUDGEMENT, [rows.judgement_row(i, judgement) for judgement in judgements])
            many(rows.INSERT_CALL, [rows.call_row(i, call, now) for call in calls])
            many(rows.INSERT_SCORE, [rows.score_row(i, score, now) for score in scores])
            self._execute(_FINISH, (*_end_row(end, now), i))
        return True

    def reopen_failed(self, iteration: int | None = None, split: str | None = None) -> int:
        """Let failed conversations (of one iteration and split) be tried again; return how many there are.

        Their calls stay in the accounts.
        """
        with self._transaction():
            changed = self._execute(
                "UPDATE trajectory SET status = 'running', reason = NULL, failure = NULL, detail = NULL,"
                " finished = NULL WHERE status = 'failed' AND episode_id IN (SELECT id FROM episode"
                " WHERE iteration = coalesce(?, iteration) AND split = coalesce(?, split))",
                (iteration, split),
            )
        self._finished = self._read_finished()
        return changed

    # -- stages of training -------------------------------------------------------------------------------------------

    def begin_stage(self, iteration: int, name: str) -> None:
        """Store that a stage is at work; one that was broken off begins anew."""
        self._execute(
            "INSERT INTO stage (iteration, name, started) VALUES (?, ?, ?) ON CONFLICT DO UPDATE"
            " SET started = excluded.started WHERE finished IS NULL",
            (iteration, name, time.time()),
        )

    def finish_stage(self, iteration: int, name: str, data: Mapping[str, Any]) -> None:
        """Store what came of a stage: from now on it is never repeated."""
        text = rows.safe(orjson.dumps(dict(data)).decode())
        self._execute(
            "UPDATE stage SET finished = ?, data = ? WHERE iteration = ? AND name = ?",
            (time.time(), text, iteration, name),
        )

    def finished_stages(self) -> dict[tuple[int, str], dict[str, Any]]:
        """Return what came of every finished stage, by iteration and name."""
        with explained(self.path):
            found = self._connection.execute("SELECT iteration, name, data FROM stage WHERE finished NOT NULL")
            return {(row["iteration"], row["name"]): orjson.loads(row["data"]) for row in found}

    def set_agent(self, iteration: int, agent: str) -> None:
        """Store who speaks as the agent in an iteration: an adapter's folder in the run, or a model's name."""
        self._execute(
            "INSERT INTO iteration (number, adapter, started) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
            (iteration, agent, time.time()),
        )

    # -- the run ------------------------------------------------------------------------------------------------------

    def set_state(self, state: RunState) -> None:
        """Store what the run is doing, and how long it has been at it."""
        elapsed, self._opened = time.monotonic() - self._opened, time.monotonic()
        self._execute("UPDATE run SET state = ?, seconds = seconds + ? WHERE id = 1", (state, elapsed))

    def add_event(self, kind: str, data: Mapping[str, Any]) -> None:
        """Store something that happened to the run."""
        text = rows.safe(orjson.dumps(dict(data), default=str).decode())
        self._execute("INSERT INTO event (time, kind, data) VALUES (?, ?, ?)", (time.time(), kind, text))

    def totals(self, *, scoring: bool = False) -> Totals:
        """Return what a run has come to, all sittings together; what scores took is in it only with ``scoring``."""
        with explained(self.path):
            return Totals(*self._connection.execute(_TOTALS, (scoring,)).fetchone())

    def tokens_of(self, iteration: int, split: Split | None = None, *, scoring: bool = False) -> int:
        """Return what the conversations of an iteration (and split) took, or scores of them, all sittings together."""
        with explained(self.path):
            found: int = self._connection.execute(_TOKENS, (iteration, split, scoring)).fetchone()[0]
        return found

    def close(self) -> None:
        """Fold the write-ahead log into the database and close it."""
        try:
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.Error:
            pass  # the log stays beside the database, and holds everything
        finally:
            self._connection.close()

    # -- SQLite -------------------------------------------------------------------------------------------------------

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            yield
            self._connection.execute("COMMIT")
        except BaseException as error:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            if isinstance(error, sqlite3.Error):
                raise store_error(error, self.path) from None
            raise

    def _execute(self, sql: str, values: tuple[Any, ...] = ()) -> int:
        try:
            return self._connection.execute(sql, values).rowcount
        except sqlite3.Error as error:
            raise store_error(error, self.path) from None

    def _insert(self, sql: str, values: tuple[Any, ...]) -> int:
        try:
            return self._connection.execute(sql, values).lastrowid or 0
        except sqlite3.Error as error:
            raise store_error(error, self.path) from None

    def _read_finished(self) -> set[_Key]:
        query = (
            "SELECT e.iteration, e.environment, e.scenario, e.initial_state, e.sample"
            " FROM episode e JOIN trajectory t ON t.episode_id = e.id WHERE t.status != 'running'"
        )
        return {tuple(row) for row in self._connection.execute(query)}

    def _known(self, record: EpisodeRecord) -> int:
        """Return the identifier of an episode that is stored; InfluenceError if it was made otherwise."""
        key = record.key
        row = self._connection.execute(
            "SELECT id, population, cue, seed FROM episode WHERE iteration = ? AND environment = ? AND scenario = ?"
            " AND initial_state = ? AND sample = ?",
            _key(key),
        ).fetchone()
        if tuple(row)[1:] != (record.population, record.cue, record.seed):
            raise InfluenceError(
                f"{self.path} holds {key.scenario}/{key.initial_state} (sample {key.sample}) with other settings.",
                hint="Go on with the run's own seed, population and cue, or start a new run.",
            )
        episode_id: int = row["id"]
        return episode_id
