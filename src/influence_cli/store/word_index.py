"""Which conversations hold a word or a phrase: the full-text index of the filter language.

The index (FTS5) lies in ``search.db``, so that a run's only writer never pays for it and a live run can be searched. What
a conversation said among some thousand messages of the run is one row, a *part*: a finished conversation is one or two of
them, so that a word which nearly all conversations hold costs a row each and not one for every message that holds it.

Invariant: a phrase is found only within one message, and never in one that was dropped, be it after it was taken in.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from influence_cli.store.connection import BUSY_SECONDS, explained, store_error
from influence_cli.store.reader import RunReader
from influence_cli.store.search import INDEX, open_index
from influence_cli.store.search import TABLES as MESSAGE_TABLES

_BATCH = 10_000
_SCATTERED = 20_000
_PARTS_EACH = 3
_BETWEEN = "\ue000"
"""A token between messages, so that no phrase reaches from one into the next; a private character, no part of any text."""

TABLES = (
    "CREATE VIRTUAL TABLE IF NOT EXISTS part_fts USING fts5 (text, content = '', columnsize = 0)",
    "CREATE TABLE IF NOT EXISTS part (id INTEGER PRIMARY KEY AUTOINCREMENT, episode_id INTEGER NOT NULL,"
    " first INTEGER NOT NULL, last INTEGER NOT NULL)",
    "CREATE INDEX IF NOT EXISTS part_of_episode ON part (episode_id)",
    "CREATE TABLE IF NOT EXISTS left_out (message_id INTEGER PRIMARY KEY)",
    "CREATE TABLE IF NOT EXISTS taken_in (id INTEGER PRIMARY KEY CHECK (id = 1), message_id INTEGER NOT NULL)",
    "INSERT OR IGNORE INTO taken_in VALUES (1, 0)",
)
# A row of part_fts cannot be taken back without its text: one that is replaced loses its row of part, and counts no more.
# So no number of a part may be used again: AUTOINCREMENT.


def open_words(path: Path, fallback: str) -> sqlite3.Connection:
    """Return the index in ``path``, made if it is new; where that cannot be, in ``fallback``."""
    return open_index(path, fallback, TABLES)


def conversations_with(words: str, *, prefix: bool, schema: str) -> tuple[str, tuple[Any, ...]]:
    """Return the SQL, and its values, of the numbers of the conversations that hold ``words`` next to each other.

    With ``prefix`` the last word may go on; ``schema`` is what the index is attached as.
    """
    quoted = '"' + _plain(words).replace('"', '""') + '"'
    sql = (
        f"SELECT p.episode_id FROM {schema}.part_fts f JOIN {schema}.part p ON p.id = f.rowid"  # noqa: S608
        " WHERE f.part_fts MATCH ?"
    )
    return sql, (f"{quoted}*" if prefix else quoted,)


def take_in(index: sqlite3.Connection, run: RunReader) -> Iterator[float]:
    """Add the messages that came since the last time; yield the share that is in after every few thousand."""
    with explained(run.path / INDEX):
        whole: int = run.rows("SELECT coalesce(max(id), 0) FROM message")[0][0]
        last = _taken(index)
        while last < whole:
            index.execute("BEGIN IMMEDIATE")
            batch = (_taken(index), _BATCH)  # asked again: another viewer may have been quicker
            rows = run.rows("SELECT id, episode_id, text, dropped FROM message WHERE id > ? ORDER BY id LIMIT ?", batch)
            _add_batch(index, rows)
            index.execute("COMMIT")
            last = rows[-1]["id"] if rows else whole
            yield last / max(whole, last)
        _leave_out(index, run)


def gather(index: sqlite3.Connection) -> None:
    """Empty an index whose conversations are scattered over many parts: those of a run that was watched from its start.

    Taken in anew, each of them is one or two.
    """
    parts, conversations = index.execute("SELECT count(*), count(DISTINCT episode_id) FROM part").fetchone()
    if parts > max(_SCATTERED, _PARTS_EACH * conversations):
        index.execute("BEGIN IMMEDIATE")
        _empty(index)
        index.execute("COMMIT")


def empty_index(path: Path) -> None:
    """Empty the index in ``path``, if there is one: the run's messages were replaced, and their numbers used again.

    It is not deleted, since somebody may have it open, unless it is damaged and of no use to anybody.
    """
    if not path.is_file():
        return
    index = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
    try:
        index.execute("BEGIN IMMEDIATE")
        for statement in (*MESSAGE_TABLES, *TABLES):
            index.execute(statement)
        index.execute("DELETE FROM message_fts")
        _empty(index)
        index.execute("COMMIT")
    except sqlite3.OperationalError as error:
        raise store_error(error, path) from None
    except sqlite3.DatabaseError:
        path.unlink(missing_ok=True)
    finally:
        index.close()


def _empty(index: sqlite3.Connection) -> None:
    index.execute("INSERT INTO part_fts (part_fts) VALUES ('delete-all')")
    index.execute("DELETE FROM part")  # its numbers go on
    index.execute("DELETE FROM left_out")
    index.execute("UPDATE taken_in SET message_id = 0")


def _taken(index: sqlite3.Connection) -> int:
    last: int = index.execute("SELECT message_id FROM taken_in").fetchone()[0]
    return last


def _add_batch(index: sqlite3.Connection, rows: Sequence[sqlite3.Row]) -> None:
    parts: dict[int, list[sqlite3.Row]] = {}
    for row in rows:
        if not row["dropped"]:
            parts.setdefault(row["episode_id"], []).append(row)
    for episode_id, messages in parts.items():
        _add_part(index, episode_id, messages)
    if rows:
        dropped = ((row["id"],) for row in rows if row["dropped"])
        index.executemany("INSERT OR IGNORE INTO left_out VALUES (?)", dropped)
        index.execute("UPDATE taken_in SET message_id = ?", (rows[-1]["id"],))


def _add_part(index: sqlite3.Connection, episode_id: int, messages: Sequence[sqlite3.Row]) -> None:
    place = (episode_id, messages[0]["id"], messages[-1]["id"])
    number = index.execute("INSERT INTO part (episode_id, first, last) VALUES (?, ?, ?)", place).lastrowid
    text = f" {_BETWEEN} ".join(_plain(message["text"]) for message in messages)
    index.execute("INSERT INTO part_fts (rowid, text) VALUES (?, ?)", (number, text))


def _leave_out(index: sqlite3.Connection, run: RunReader) -> None:
    """Replace the parts that hold messages which were dropped after they were taken in."""
    query = "SELECT id FROM message WHERE dropped = 1 AND id <= ?"
    fresh = set(run.column(query, (_taken(index),))) - {row[0] for row in index.execute("SELECT * FROM left_out")}
    if not fresh:
        return
    index.execute("BEGIN IMMEDIATE")
    for message_id in sorted(fresh):
        index.execute("INSERT OR IGNORE INTO left_out VALUES (?)", (message_id,))
        episode_id = run.rows("SELECT episode_id FROM message WHERE id = ?", (message_id,))[0][0]
        part = "episode_id = ? AND ? BETWEEN first AND last"
        for number, first, last in index.execute(
            f"SELECT id, first, last FROM part WHERE {part}",  # noqa: S608
            (episode_id, message_id),
        ).fetchall():
            index.execute("DELETE FROM part WHERE id = ?", (number,))
            kept = run.rows(
                "SELECT id, text FROM message WHERE episode_id = ? AND id BETWEEN ? AND ? AND dropped = 0 ORDER BY id",
                (episode_id, first, last),
            )
            if kept:
                _add_part(index, episode_id, kept)
    index.execute("COMMIT")


def _plain(text: str) -> str:
    return text.replace(_BETWEEN, " ")
