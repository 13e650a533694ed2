"""Full-text search over a run's messages: which say it best, and where in them.

The index (FTS5) lives in a file of its own, ``search.db``, so that a run's only writer never pays for it and a live run
can be searched; each search first takes in the messages that came since the last. Where the directory cannot be
written, the index is made in memory. Which *conversations* hold a word is asked of :mod:`influence_cli.store.word_index`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from influence_cli.errors import InfluenceError
from influence_cli.store.connection import BUSY_SECONDS, explained, store_error
from influence_cli.store.reader import RunReader

INDEX = "search.db"
TABLES = ("CREATE VIRTUAL TABLE IF NOT EXISTS message_fts USING fts5 (text)",)
_BATCH = 5_000
_MARK = ("\x02", "\x03")


@dataclass(frozen=True)
class Found:
    """A message that a search found; in ``excerpt`` the words stand between the control characters 2 and 3."""

    message_id: int
    episode_id: int
    scenario: str
    initial_state: str
    sample: int
    turn: int
    speaker: str
    excerpt: str


def search_messages(run: RunReader, query: str, *, limit: int = 20) -> list[Found]:
    """Return the messages that match ``query`` (words, "phrases", AND, OR, NOT, prefix*), best first.

    Dropped messages are not searched. Raises InfluenceError for a query that FTS5 cannot read.
    """
    index = open_index(run.path / INDEX, ":memory:", TABLES)
    try:
        _take_in(index, run)
        try:
            hits = index.execute(
                "SELECT rowid, snippet(message_fts, 0, ?, ?, '...', 16) FROM message_fts WHERE message_fts MATCH ?"
                " ORDER BY rank LIMIT ?",
                (*_MARK, query, limit),
            ).fetchall()
        except sqlite3.Error as error:
            raise InfluenceError(
                f"The search {query!r} cannot be read: {error}.", hint="Put phrases in quotes: '\"just stay home\"'."
            ) from None
    finally:
        index.close()
    return [found for rowid, excerpt in hits if (found := _found(run, rowid, excerpt)) is not None]


def open_index(path: Path, fallback: str, tables: Sequence[str]) -> sqlite3.Connection:
    """Return the index in ``path`` with ``tables``, made if they are new; where that cannot be, in ``fallback``."""
    for place in (str(path), fallback):
        index: sqlite3.Connection | None = None
        try:
            index = sqlite3.connect(place, timeout=BUSY_SECONDS, isolation_level=None)
            for statement in tables:
                index.execute(statement)
        except sqlite3.Error as error:
            if index is not None:
                index.close()
            if place == fallback:
                raise store_error(error, path) from None
        else:
            return index
    raise AssertionError("the fallback raises")


def _take_in(index: sqlite3.Connection, run: RunReader) -> None:
    """Add the messages that came since the last time."""
    with explained(run.path / INDEX):
        last: int = index.execute("SELECT coalesce(max(rowid), 0) FROM message_fts").fetchone()[0]
        while rows := run.rows("SELECT id, text FROM message WHERE id > ? ORDER BY id LIMIT ?", (last, _BATCH)):
            index.execute("BEGIN IMMEDIATE")
            texts = ((row["id"], row["text"]) for row in rows)
            index.executemany("INSERT OR REPLACE INTO message_fts (rowid, text) VALUES (?, ?)", texts)
            index.execute("COMMIT")
            last = rows[-1]["id"]


def _found(run: RunReader, message_id: int, excerpt: str) -> Found | None:
    rows = run.rows(
        "SELECT m.episode_id, e.scenario, e.initial_state, e.sample, m.turn, m.speaker FROM message m"
        " JOIN episode e ON e.id = m.episode_id WHERE m.id = ? AND m.dropped = 0",
        (message_id,),
    )
    if not rows:
        return None
    row = rows[0]
    return Found(
        message_id=message_id,
        episode_id=row["episode_id"],
        scenario=row["scenario"],
        initial_state=row["initial_state"],
        sample=row["sample"],
        turn=row["turn"],
        speaker=row["speaker"],
        excerpt=excerpt,
    )
