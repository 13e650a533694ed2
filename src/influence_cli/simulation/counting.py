"""What a run's database gained since a moment, as the tally of one process would say it."""

from __future__ import annotations

from collections import Counter
from typing import Any

import orjson

from influence_cli.simulation.tally import PASSING_KINDS, RoleTally, StopReason, Tally
from influence_cli.store.reader import RunReader

_OF_TALK = "c.role NOT IN ('judge', 'probe')"
_ENDED = "FROM trajectory t WHERE t.status != 'running' AND t.finished"
_JUDGED = "FROM judgement j JOIN trajectory t ON t.episode_id = j.episode_id WHERE t.finished >= ?"
_CULPRIT = "(SELECT role FROM call c WHERE c.episode_id = t.episode_id AND error NOT NULL ORDER BY id DESC LIMIT 1)"
_FIELDS = ("requests", "cached", "prompt_tokens", "cached_tokens", "completion_tokens", "latency")


def count_since(run: RunReader, tally: Tally, started: float) -> None:
    """Set the counters of ``tally`` to what the run gained since ``started``, in seconds of the epoch.

    Judgements count from when their conversation ended; everything else from when it was stored.
    """

    def rows(sql: str) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in run.rows(sql, (started,))]

    tally.active = 0
    tally.earlier_done = rows(f"SELECT count(*) {_ENDED} < ?")[0][0]
    ((tally.complete, tally.failed, tally.turns),) = rows(
        f"SELECT coalesce(sum(status = 'complete'), 0), coalesce(sum(status = 'failed'), 0), coalesce(sum(turns), 0)"
        f" {_ENDED} >= ?"
    )
    ((tally.ratings, tally.rating_sum),) = rows(
        f"SELECT count(j.expected), coalesce(sum(j.expected), 0.0) {_JUDGED} AND j.role = 'preference' AND j.usable"
    )
    tally.unusable = Counter(dict(rows(f"SELECT j.role, count(*) {_JUDGED} AND NOT j.usable GROUP BY 1")))
    failed = rows(
        f"SELECT {_CULPRIT}, t.failure, count(*), max(t.detail) {_ENDED} >= ? AND t.failure NOT NULL GROUP BY 1, 2"
    )
    tally.failures = Counter({(role, kind): count for role, kind, count, _ in failed})
    tally.last_failure = next((str(detail or kind) for _, kind, _, detail in failed), "")
    _count_calls(run, tally, started)


def _count_calls(run: RunReader, tally: Tally, started: float) -> None:
    sums = ", ".join(f"sum({name}) AS {name}" for name in _FIELDS)
    found = run.rows(
        f"SELECT role, count(*) AS calls, sum(error NOT NULL AND error NOT IN ('cancelled', 'unusable')) AS failed, {sums},"  # noqa: S608
        " sum(error = 'cancelled') AS dropped, coalesce(sum(cost), 0.0) AS cost, sum(cost IS NULL) AS unpriced,"
        f" sum(cached * (prompt_tokens + completion_tokens)) AS free FROM call c WHERE {_OF_TALK} AND ended >= ? GROUP BY 1",
        (started,),
    )
    tally.roles = {row["role"]: RoleTally(**{name: row[name] for name in vars(RoleTally())}) for row in found}
    tally.cost = sum(row["cost"] for row in found)
    tally.unpriced_calls = sum(row["unpriced"] for row in found)
    tally.cached_answer_tokens = sum(row["free"] for row in found)
    before = run.rows(
        "SELECT coalesce(sum((prompt_tokens + completion_tokens) * (1 - cached)), 0), coalesce(sum(cost), 0.0)"  # noqa: S608
        f" FROM call c WHERE {_OF_TALK} AND ended < ?",
        (started,),
    )[0]
    tally.earlier_tokens, tally.earlier_cost = before
    dropped = run.rows(
        "SELECT count(*) FROM message m JOIN trajectory t ON t.episode_id = m.episode_id"
        " WHERE m.dropped AND t.finished >= ?",
        (started,),
    )[0][0]
    tally.speculations_dropped = dropped + sum(row["dropped"] or 0 for row in found)


def last_stop(run: RunReader) -> StopReason | None:
    """Return why the last sitting ended early: ``signal``, ``cost``, ``tokens``, ``alike``; None if it did not."""
    found = run.rows("SELECT kind, data FROM event WHERE kind IN ('stop', 'resume') ORDER BY id DESC LIMIT 1")
    if not found or found[0]["kind"] != "stop":
        return None
    reason: StopReason = orjson.loads(found[0]["data"])["reason"]
    return reason


def failed_for_now(run: RunReader) -> dict[str, int]:
    """Return by kind how many conversations failed because a server could not be reached in time."""
    found = run.rows("SELECT failure, count(*) FROM trajectory WHERE status = 'failed' GROUP BY 1")
    return {row[0]: row[1] for row in found if row[0] in PASSING_KINDS}


def ended_count(run: RunReader) -> int:
    """Return how many conversations have ended, one way or the other."""
    count: int = run.rows("SELECT count(*) FROM trajectory WHERE status != 'running'")[0][0]
    return count
