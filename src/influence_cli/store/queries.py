"""What a run adds up to: the figures of ``influence runs show``.

Invariant: unusable judgements are counted and enter no mean. ``mean_rating`` is over complete conversations, each by its
mean over turns, as in reports; ``rating`` and the tables by turn, scenario and population are over turns.
"""

from __future__ import annotations

import sqlite3
from typing import Any

from influence_cli.store.reader import RunReader

_RATING = (
    "count(*) AS n, avg(j.expected) AS mean,"
    " CASE WHEN count(*) > 1 THEN sqrt(max(0.0, (sum(j.expected * j.expected) - count(*) * avg(j.expected)"
    " * avg(j.expected)) / (count(*) - 1))) END AS sd"
)
_RATINGS = "FROM judgement j WHERE j.role = ? AND j.usable = 1 AND j.expected IS NOT NULL"
_BASE = "CASE WHEN instr(model, '@') THEN substr(model, 1, instr(model, '@') - 1) ELSE model END"
"""A model's name without its adapter."""
_USED = (
    "count(*) AS calls, sum(requests) AS requests, sum(max(requests - 1, 0)) AS retries,"
    " sum(error NOT NULL AND error NOT IN ('cancelled', 'unusable')) AS failed, sum(cached) AS cached,"
    " sum(prompt_tokens) AS prompt_tokens, sum(cached_tokens) AS cached_tokens, sum(completion_tokens) AS completion_tokens,"
    " CASE WHEN count(cost) = count(*) THEN sum(cost) END AS cost, avg(latency) AS seconds_per_call"
)
"""Counts, tokens, cost and time of calls; cost is None where a call has no known price."""
_GROUPED = "FROM judgement j JOIN episode e ON e.id = j.episode_id WHERE j.role = ? AND j.usable = 1"


def run_figures(run: RunReader) -> dict[str, Any]:
    """Return the documented object ``influence.runs.show/1``."""
    manifest = run.directory.manifest
    return {
        "schema": "influence.runs.show/1",
        "run": manifest.run_id,
        "path": str(run.path),
        "state": run.state(),
        "command": manifest.command,
        "created": manifest.created,
        "seconds": _one(run, "SELECT seconds FROM run WHERE id = 1"),
        "seed": manifest.config.seed,
        "environments": list(manifest.environments),
        "models": manifest.models,
        "conversations": conversation_counts(run),
        "turns": _one(run, "SELECT coalesce(sum(turns), 0) FROM trajectory"),
        "mean_rating": _one(run, "SELECT avg(mean_rating) FROM trajectory WHERE status = 'complete'"),
        "rating": _dict(run.rows(f"SELECT {_RATING} {_RATINGS}", ("preference",)))[0],
        "veto": _dict(run.rows(f"SELECT {_RATING} {_RATINGS}", ("veto",)))[0],
        "by_turn": _by(run, "j.turn", "turn", "FROM judgement j WHERE j.role = ? AND j.usable = 1"),
        "by_scenario": _by(run, "e.environment || '/' || e.scenario", "scenario", _GROUPED),
        "by_population": _by(run, "coalesce(e.population, '-')", "population", _GROUPED),
        "ends": _dict(
            run.rows("SELECT reason, count(*) AS n FROM trajectory WHERE reason NOT NULL GROUP BY 1 ORDER BY n DESC")
        ),
        "failures": _dict(
            run.rows(
                "SELECT failure AS kind, count(*) AS n FROM trajectory WHERE failure NOT NULL"
                " GROUP BY 1 ORDER BY n DESC"
            )
        ),
        "unusable": _dict(
            run.rows(
                "SELECT role, method, count(*) AS n, sum(1 - usable) AS unusable, avg(mass) AS mean_mass FROM judgement"
                " GROUP BY role, method ORDER BY role"
            )
        ),
        "calls": _calls(run),
        "agent_calls": _agent_calls(run),
        "speculations_dropped": _one(run, "SELECT count(*) FROM message WHERE dropped = 1")
        + _one(run, "SELECT count(*) FROM call WHERE error = 'cancelled'"),
        "events": _dict(run.rows("SELECT time, kind, data FROM event ORDER BY id LIMIT 100")),
    }


def conversation_counts(run: RunReader) -> dict[str, int]:
    """Return how many conversations a run has: ``total``, ``complete``, ``failed`` and ``running`` (not finished)."""
    counts = {"complete": 0, "failed": 0, "running": 0}
    for row in run.rows("SELECT status, count(*) FROM trajectory GROUP BY status"):
        counts[row[0]] = row[1]
    return {"total": sum(counts.values()), **counts}


def is_finished(run: RunReader) -> bool:
    """Return whether a run is done, and no more of it failed than it allows."""
    if run.state() != "done":
        return False
    counts = conversation_counts(run)
    return counts["failed"] <= run.directory.manifest.config.max_failed_share * counts["total"]


def _by(run: RunReader, expression: str, name: str, source: str) -> list[dict[str, Any]]:
    """Return rating and mean veto by the groups that ``expression`` makes."""
    query = f"SELECT {expression} AS {name}, {_RATING} {source} AND j.expected IS NOT NULL GROUP BY 1 ORDER BY 1"
    groups = _dict(run.rows(query, ("preference",)))
    vetoes = {row[name]: row["mean"] for row in _dict(run.rows(query, ("veto",)))}
    return [{**group, "veto": vetoes.get(group[name])} for group in groups]


def _calls(run: RunReader) -> list[dict[str, Any]]:
    """Return what calls took by role and model; ``adapters`` counts the different weights that were on top of it."""
    adapters = "count(DISTINCT CASE WHEN instr(model, '@') THEN model END) AS adapters"
    sql = f"SELECT role, {_BASE} AS model, {adapters}, {_USED} FROM call GROUP BY 1, 2 ORDER BY min(id)"  # noqa: S608
    return _dict(run.rows(sql))


def _agent_calls(run: RunReader) -> list[dict[str, Any]]:
    """Return what the agent's calls took by iteration and adapter; nothing for a run without adapters."""
    if not run.rows("SELECT 1 FROM call WHERE role = 'agent' AND instr(model, '@') LIMIT 1"):
        return []
    source = "FROM call JOIN episode e ON e.id = call.episode_id WHERE role = 'agent'"
    sql = f"SELECT e.iteration, model, {_USED} {source} GROUP BY 1, 2 ORDER BY 1, min(call.id)"
    return _dict(run.rows(sql))


def run_line(run: RunReader) -> dict[str, Any]:
    """Return the few figures that a list of runs shows."""
    counts = conversation_counts(run)
    mean = run.rows("SELECT avg(mean_rating), avg(mean_veto) FROM trajectory WHERE status = 'complete'")[0]
    manifest = run.directory.manifest
    return {
        "run": manifest.run_id,
        "path": str(run.path),
        "command": manifest.command,
        "created": manifest.created,
        "state": run.state(),
        "environments": list(manifest.environments),
        "conversations": counts["total"],
        "complete": counts["complete"],
        "failed": counts["failed"],
        "mean_rating": mean[0],
        "mean_veto": mean[1],
    }


def _one(run: RunReader, sql: str) -> Any:
    rows = run.rows(sql)
    return rows[0][0] if rows else None


def _dict(rows: list[sqlite3.Row]) -> list[dict[str, Any]]:
    return [dict(row) for row in rows]
