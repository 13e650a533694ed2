"""Whether a run's database is whole."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from influence_cli.store.connection import store_error
from influence_cli.store.reader import RunReader
from influence_cli.store.run_directory import RunDirectory
from influence_cli.store.schema import OF_EPISODE

_ORPHANS = "SELECT count(*) FROM {} c LEFT JOIN episode e ON e.id = c.episode_id WHERE e.id IS NULL"

_RULES: tuple[tuple[str, str], ...] = (
    (
        "SELECT count(*) FROM episode e LEFT JOIN trajectory t ON t.episode_id = e.id WHERE t.episode_id IS NULL",
        "{n} conversations have no trajectory",
    ),
    (
        "SELECT count(*) FROM (SELECT 1 FROM message WHERE source = 'model' AND dropped = 0 AND tool_calls IS NULL"
        " GROUP BY episode_id, turn, speaker HAVING count(*) > 1)",
        "{n} turns hold a message twice",
    ),
    (
        "SELECT count(*) FROM (SELECT 1 FROM judgement GROUP BY episode_id, turn, role HAVING count(*) > 1)",
        "{n} turns were judged twice by one role",
    ),
    (
        "SELECT count(*) FROM trajectory t WHERE t.status = 'complete' AND t.turns != (SELECT count(*) FROM message m"
        " WHERE m.episode_id = t.episode_id AND m.source = 'model' AND m.speaker = 'agent' AND m.dropped = 0"
        " AND m.tool_calls IS NULL)",
        "{n} complete conversations lack a reply",
    ),
)

_RATED = (
    "SELECT count(*) FROM trajectory t WHERE t.status = 'complete' AND t.turns > 0 AND t.turns > (SELECT"
    " count(DISTINCT turn) FROM judgement j WHERE j.episode_id = t.episode_id AND j.role = 'preference')",
    "{n} complete conversations lack a rating",
)


def check_run(directory: RunDirectory) -> list[str]:
    """Return everything that is wrong with the run's database, a line each; empty if it is whole."""
    try:
        with RunReader(directory) as run:
            return list(_problems(run))
    except sqlite3.Error as error:
        return [str(store_error(error, directory.database))]


def _problems(run: RunReader) -> Iterator[str]:
    damage = [row[0] for row in run.rows("PRAGMA integrity_check(20)") if row[0] != "ok"]
    if damage:
        yield from (f"SQLite: {line}" for line in damage)
        return
    for table in OF_EPISODE:
        if n := run.rows(_ORPHANS.format(table))[0][0]:
            yield f"{n} rows of {table} belong to no conversation"
    imported = run.directory.manifest.command == "import"  # what a file does not say, its run does not hold
    for sql, told in _RULES if imported else (*_RULES, _RATED):
        if n := run.rows(sql)[0][0]:
            yield told.format(n=n)
