"""Merging the databases of shards into ``run.db``.

Invariant: merging is idempotent; a conversation that both sides hold is taken once, whole, from the side that has it
further (complete over failed over running); one that was made with other settings is refused.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from influence_cli.errors import InfluenceError
from influence_cli.store.connection import connect, explained, store_error
from influence_cli.store.run_directory import RunDirectory
from influence_cli.store.schema import OF_EPISODE, SCHEMA_VERSION, check_version, migrate

SHARD_PATTERN = "run-*.db"
_KEY = "iteration, environment, scenario, initial_state, sample"
_FACTS = "population, cue, split, seed"
_RANK = "CASE t.status WHEN 'complete' THEN 2 WHEN 'failed' THEN 1 ELSE 0 END"


def shard_files(directory: RunDirectory) -> list[Path]:
    """Return the databases of shards in the run's directory."""
    return sorted(directory.path.glob(SHARD_PATTERN))


def merge_shards(directory: RunDirectory, sources: list[Path] | None = None) -> int:
    """Take into ``run.db`` what ``sources`` (default: all shards) hold beyond it; return how many conversations came.

    Raises InfluenceError if a source was made with other settings, or by a newer version of this program.
    """
    taken = 0
    with directory.writer():
        connection = connect(directory.database, write=True)
        try:
            for source in shard_files(directory) if sources is None else sources:
                if not source.samefile(directory.database):
                    taken += _merge(connection, directory.database, source)
        finally:
            connection.close()
    return taken


def _merge(connection: sqlite3.Connection, target: Path, source: Path) -> int:
    _bring_up_to_date(source)
    with explained(target):
        connection.execute("ATTACH DATABASE ? AS shard", (str(source),))
    try:
        connection.execute("BEGIN IMMEDIATE")
        try:
            count = _take(connection, source)
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise
    except sqlite3.Error as error:
        raise store_error(error, target) from None
    finally:
        connection.execute("DETACH DATABASE shard")
    return count


def _bring_up_to_date(source: Path) -> None:
    """Migrate ``source`` if it was written by an older version; InfluenceError if it is newer, or no run."""
    connection = connect(source, write=False)
    try:
        with explained(source):
            version = check_version(connection, source)
        if version < SCHEMA_VERSION:
            connection.close()
            connection = connect(source, write=True)
            with explained(source):
                migrate(connection, source)
    finally:
        connection.close()


def _take(connection: sqlite3.Connection, source: Path) -> int:
    same_key = " AND ".join(f"a.{name.strip()} = b.{name.strip()}" for name in _KEY.split(","))
    other = " OR ".join(f"a.{name.strip()} IS NOT b.{name.strip()}" for name in _FACTS.split(","))
    clash = connection.execute(
        f"SELECT b.scenario, b.initial_state, b.sample FROM main.episode a JOIN shard.episode b ON {same_key}"  # noqa: S608
        f" WHERE {other} LIMIT 1"
    ).fetchone()
    if clash is not None:
        raise InfluenceError(
            f"{source} holds {clash[0]}/{clash[1]} (sample {clash[2]}) made with other settings.",
            hint="Merge only shards of one run.",
        )
    wanted = connection.execute(
        f"SELECT b.id AS source, a.id AS target FROM shard.episode b"  # noqa: S608
        f" JOIN shard.trajectory t ON t.episode_id = b.id"
        f" LEFT JOIN main.episode a ON {same_key}"
        f" WHERE a.id IS NULL OR {_RANK} >"
        f" (SELECT {_RANK.replace('t.', 'm.')} FROM main.trajectory m WHERE m.episode_id = a.id) ORDER BY b.id"
    ).fetchall()
    for row in wanted:
        _copy(connection, row["source"], row["target"])
    return len(wanted)


def _copy(connection: sqlite3.Connection, source: int, target: int | None) -> None:
    """Copy one conversation, in place of the one it is further than."""
    if target is not None:
        for table in OF_EPISODE:
            connection.execute(f"DELETE FROM main.{table} WHERE episode_id = ?", (target,))  # noqa: S608
    else:
        columns = f"{_KEY}, {_FACTS}, profile"
        target = connection.execute(
            f"INSERT INTO main.episode ({columns}) SELECT {columns} FROM shard.episode WHERE id = ?",  # noqa: S608
            (source,),
        ).lastrowid
    for table in OF_EPISODE:
        names = [row["name"] for row in connection.execute(f"PRAGMA main.table_info({table})")]
        rest = ", ".join(name for name in names if name not in ("id", "episode_id"))
        connection.execute(
            f"INSERT INTO main.{table} (episode_id, {rest})"  # noqa: S608
            f" SELECT ?, {rest} FROM shard.{table} WHERE episode_id = ? ORDER BY rowid",
            (target, source),
        )
