"""Merging the databases of shards into ``run.db``, and handing a shard what the run holds already.

Invariant: merging is idempotent; a conversation that both sides hold is taken once, whole, from the side that has it
further (complete over others, then by its calls); a database of another run is refused before anything is taken. Scores
and labels that one side lacks, or has older, are taken whichever side the conversation came from. The search index never
holds messages that a merge replaced, whose numbers others have then.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path

from influence_cli.errors import InfluenceError
from influence_cli.schemas.records import EpisodeKey
from influence_cli.store.conditions import refuse_other_run
from influence_cli.store.connection import connect, explained, store_error
from influence_cli.store.run_directory import RunDirectory, lock_holder, shard_files
from influence_cli.store.schema import OF_EPISODE, SCHEMA_VERSION, check_version, is_empty, migrate
from influence_cli.store.search import INDEX
from influence_cli.store.word_index import empty_index

SHARD_LOCKS = "run-*.lock"
_NAMES = ("iteration", "environment", "scenario", "initial_state", "sample")
_KEY = ", ".join(_NAMES)
_FACTS = "population, cue, split, seed"
_FINDINGS = ("score", "label")
"""What is thought of a conversation that is over: merged row by row."""
_SAME = " AND ".join(f"a.{name} = b.{name}" for name in _NAMES)
_BOTH = (
    f"FROM shard.episode b JOIN main.episode a ON {_SAME}"
    " JOIN shard.trajectory t ON t.episode_id = b.id JOIN main.trajectory m ON m.episode_id = a.id"
)
_ALIKE = "t.finished IS m.finished AND t.status = m.status"
"""What holds of a conversation that was copied from one side to the other: it is the same on both."""
_NEWER = {
    "score": (
        ("turn", "rubric_hash", "judge", "method"),
        "x.ended > y.ended AND (x.failure IS NULL OR y.failure IS NOT NULL)",
    ),
    "label": (("turn", "rubric", "author"), "x.time > y.time"),
}
"""By table: what makes two rows of a conversation one, and when the shard's x is taken in place of the run's y."""


def merge_shards(directory: RunDirectory, sources: Sequence[Path] | None = None) -> int:
    """Take into ``run.db`` what ``sources`` (default: all shards) hold beyond it; return how many conversations came.

    Raises InfluenceError if a source that is named is no database of the run or holds nothing, if one was written by a
    newer version of this program, or if somebody writes the run.
    """
    for source in sources or ():
        if holds_nothing(source):
            raise InfluenceError(f"{source} holds no conversation.", hint="Name the database of a shard or of a run.")
    with directory.writer():
        return merge_into(directory, sources)


def refuse_live_shards(directory: RunDirectory) -> None:
    """Raise InfluenceError if a process of this machine writes a shard of the run."""
    for lock in sorted(directory.path.glob(SHARD_LOCKS)):
        process = lock_holder(lock)
        if process is not None:
            raise InfluenceError(
                f"{lock.with_suffix('.db')} is being written by process {process}.",
                hint="Wait for it to end, or stop it.",
            )


def unmerged(directory: RunDirectory) -> int:
    """Return how many conversations the run's shards hold further than ``run.db``, or with scores or labels it lacks.

    Changes nothing. What was written by another version of this program is left out.
    """
    count = 0
    with closing(connect(directory.database, write=False)) as connection, explained(directory.database):
        for source in shard_files(directory):
            connection.execute("ATTACH DATABASE ? AS shard", (f"{source.resolve().as_uri()}?mode=ro",))
            try:
                if connection.execute("PRAGMA shard.user_version").fetchone()[0] == SCHEMA_VERSION:
                    found = {row["source"] for row in _further(connection)}
                    for table in _NEWER:
                        join, where = _lacking(table)
                        lacking = f"JOIN shard.{table} x ON x.episode_id = b.id {join} WHERE {_ALIKE} AND {where}"
                        found.update(row[0] for row in connection.execute(f"SELECT DISTINCT b.id {_BOTH} {lacking}"))
                    count += len(found)
            finally:
                connection.execute("DETACH DATABASE shard")
    return count


def holds_nothing(database: Path) -> bool:
    """Return whether a database has no tables yet: its writer was killed before it had made them."""
    with closing(connect(database, write=False)) as connection, explained(database):
        return is_empty(connection)


def merge_into(directory: RunDirectory, sources: Sequence[Path] | None = None) -> int:
    """As :func:`merge_shards`, for who holds the run for writing."""
    given = shard_files(directory) if sources is None else sources
    beside = [source for source in given if not source.samefile(directory.database) and not holds_nothing(source)]
    for source in beside:
        refuse_other_run(directory, source)
    connection = connect(directory.database, write=True)
    try:
        places = _places(connection, directory.database, beside)
        return sum(
            _merge(connection, directory.database, source, places=places[number])
            for number, source in enumerate(beside)
        )
    finally:
        connection.close()


def take_over(shard: RunDirectory, keys: Iterable[EpisodeKey]) -> int:
    """Let a shard's database hold what ``run.db`` has of the conversations ``keys``; return how many came.

    InfluenceError if somebody writes the shard.
    """
    source = shard.path / RunDirectory(shard.path, shard.manifest).database.name
    if not source.is_file():
        return 0
    with shard.writer():
        connection = connect(shard.database, write=True)
        try:
            with explained(shard.database):
                connection.execute(f"CREATE TEMP TABLE wanted ({_KEY}, UNIQUE ({_KEY}))")
                rows = ((k.iteration, k.environment, k.scenario, k.initial_state, k.sample) for k in keys)
                connection.executemany("INSERT OR IGNORE INTO wanted VALUES (?, ?, ?, ?, ?)", rows)
            return _merge(connection, shard.database, source, only_wanted=True)
        finally:
            connection.close()


def _places(connection: sqlite3.Connection, target: Path, sources: Sequence[Path]) -> list[dict[int, int]]:
    """Return for each source the numbers of its new conversations in ``run.db``: shards by turns, as the run's sequence."""
    found: list[tuple[int, int]] = []
    for number, source in enumerate(sources):
        _attach(connection, target, source)
        try:
            with explained(target):
                found += [(row["source"], number) for row in _further(connection) if row["target"] is None]
        finally:
            connection.execute("DETACH DATABASE shard")
    last: int = connection.execute("SELECT coalesce(max(id), 0) FROM episode").fetchone()[0]
    places: list[dict[int, int]] = [{} for _ in sources]
    for place, (episode, number) in enumerate(sorted(found), start=last + 1):
        places[number][episode] = place
    return places


def _attach(connection: sqlite3.Connection, target: Path, source: Path) -> None:
    _bring_up_to_date(source)
    with explained(target):
        connection.execute("ATTACH DATABASE ? AS shard", (str(source),))


def _merge(
    connection: sqlite3.Connection,
    target: Path,
    source: Path,
    *,
    places: dict[int, int] | None = None,
    only_wanted: bool = False,
) -> int:
    index = target.with_name(INDEX)
    _attach(connection, target, source)
    try:
        connection.execute("BEGIN IMMEDIATE")
        try:
            _refuse_others(connection, source)
            wanted = _further(connection, only_wanted=only_wanted)
            for row in wanted:
                _copy(connection, row["source"], row["target"], (places or {}).get(row["source"]))
            _take_findings(connection, only_wanted=only_wanted)
            if replaced := any(row["target"] is not None for row in wanted):
                empty_index(index)  # before, for a kill in between, and again after: a search may have been quicker
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        if replaced:
            empty_index(index)
    except sqlite3.Error as error:
        raise store_error(error, target) from None
    finally:
        connection.execute("DETACH DATABASE shard")
    return len(wanted)


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


def _refuse_others(connection: sqlite3.Connection, source: Path) -> None:
    """Raise InfluenceError if ``source`` holds a conversation of the run made with other settings."""
    other = " OR ".join(f"a.{name.strip()} IS NOT b.{name.strip()}" for name in _FACTS.split(","))
    clash = connection.execute(
        f"SELECT b.scenario, b.initial_state, b.sample FROM main.episode a JOIN shard.episode b ON {_SAME}"  # noqa: S608
        f" WHERE {other} LIMIT 1"
    ).fetchone()
    if clash is not None:
        raise InfluenceError(
            f"{source} holds {clash[0]}/{clash[1]} (sample {clash[2]}) made with other settings.",
            hint="Merge only shards of one run.",
        )


def _further(connection: sqlite3.Connection, *, only_wanted: bool = False) -> list[sqlite3.Row]:
    """Return the conversations that the shard has further, by their numbers there (``source``) and here (``target``)."""

    def rank(schema: str, row: str) -> str:
        calls = f"(SELECT count(*) FROM {schema}.call c WHERE c.episode_id = {row}.episode_id)"  # noqa: S608
        unfinished = f"CASE WHEN {row}.status = 'complete' THEN 0 ELSE {calls} END"
        return f"({row}.status = 'complete', {unfinished}, {row}.status = 'failed')"

    return connection.execute(
        "SELECT b.id AS source, a.id AS target FROM shard.episode b JOIN shard.trajectory t ON t.episode_id = b.id"  # noqa: S608
        f" LEFT JOIN main.episode a ON {_SAME} LEFT JOIN main.trajectory m ON m.episode_id = a.id"
        f" WHERE (a.id IS NULL OR {rank('shard', 't')} > {rank('main', 'm')}) {_only(only_wanted)} ORDER BY b.id"
    ).fetchall()


def _only(wanted: bool) -> str:
    return f"AND ({', '.join(f'b.{name}' for name in _NAMES)}) IN temp.wanted" if wanted else ""


def _copy(connection: sqlite3.Connection, source: int, target: int | None, place: int | None) -> None:
    """Copy one conversation, in place of the one it is further than; a new one gets the number ``place``."""
    tables = [table for table in OF_EPISODE if table not in _FINDINGS]
    if target is not None:
        for table in tables:
            connection.execute(f"DELETE FROM main.{table} WHERE episode_id = ?", (target,))  # noqa: S608
    else:
        columns = f"{_KEY}, {_FACTS}, profile"
        target = connection.execute(
            f"INSERT INTO main.episode (id, {columns}) SELECT ?, {columns} FROM shard.episode WHERE id = ?",  # noqa: S608
            (place, source),
        ).lastrowid
    for table in tables:
        rest = ", ".join(_columns(connection, table))
        connection.execute(
            f"INSERT INTO main.{table} (episode_id, {rest})"  # noqa: S608
            f" SELECT ?, {rest} FROM shard.{table} WHERE episode_id = ? ORDER BY rowid",
            (target, source),
        )


def _take_findings(connection: sqlite3.Connection, *, only_wanted: bool) -> None:
    """Take scores and labels that are missing here or older, and the calls that scores took."""
    for table in _NEWER:
        join, where = _lacking(table)
        _take_rows(connection, table, join, f"{where} {_only(only_wanted)}")
    known = (
        "y.episode_id = a.id AND y.turn = x.turn AND y.role = x.role AND y.ordinal = x.ordinal AND y.ended = x.ended"
    )
    missing = f"NOT EXISTS (SELECT 1 FROM main.call y WHERE {known})"  # noqa: S608
    _take_rows(connection, "call", "", f"x.role IN ('judge', 'probe') AND {missing} {_only(only_wanted)}")


def _lacking(table: str) -> tuple[str, str]:
    """Return how the run's rows y are joined to the shard's x, and when an x is missing here or newer."""
    unique, newer = _NEWER[table]
    alike = " AND ".join(f"y.{name} = x.{name}" for name in unique)
    return f"LEFT JOIN main.{table} y ON y.episode_id = a.id AND {alike}", f"(y.id IS NULL OR ({newer}))"


def _take_rows(connection: sqlite3.Connection, table: str, join: str, where: str) -> None:
    """Take rows x of the shard's ``table`` whose conversation is the same on both sides and for which ``where`` holds."""
    names = _columns(connection, table)
    connection.execute(
        f"INSERT OR REPLACE INTO main.{table} (episode_id, {', '.join(names)})"
        f" SELECT a.id, {', '.join(f'x.{name}' for name in names)} {_BOTH}"
        f" JOIN shard.{table} x ON x.episode_id = b.id {join} WHERE {_ALIKE} AND {where} ORDER BY x.id"
    )


def _columns(connection: sqlite3.Connection, table: str) -> list[str]:
    """Return the columns of a table that a copied row keeps."""
    names = (row["name"] for row in connection.execute(f"PRAGMA main.table_info({table})"))
    return [name for name in names if name not in ("id", "episode_id")]
