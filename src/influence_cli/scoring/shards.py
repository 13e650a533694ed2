"""Scoring a run in shards: which conversations are whose, and what came of all of them together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any

from influence_cli.schemas.records import EpisodeKey
from influence_cli.scoring.running import ScoreTally
from influence_cli.store.merge import take_over
from influence_cli.store.reader import RunReader
from influence_cli.store.run_directory import RunDirectory

_NAMES = ("iteration", "environment", "scenario", "initial_state", "sample")
_COMPLETE = (
    f"SELECT {', '.join(_NAMES)} FROM episode e JOIN trajectory t ON t.episode_id = e.id"  # noqa: S608
    " WHERE t.status = 'complete' ORDER BY e.id LIMIT ?"
)
_SCORES = (
    "SELECT judge, failure, count(*) AS n, sum(usable = 0 AND failure IS NULL) AS unusable FROM score WHERE ended >= ?"
    " AND NOT (rubric LIKE 'probe:%:shift' OR rubric LIKE 'probe:%:variation') GROUP BY judge, failure"
)
_CALLS = (
    "SELECT count(*) AS calls, coalesce(sum(requests), 0) AS requests, coalesce(sum(prompt_tokens), 0) AS prompt_tokens,"
    " coalesce(sum(cached_tokens), 0) AS cached_tokens, coalesce(sum(completion_tokens), 0) AS completion_tokens,"
    " coalesce(sum(latency), 0.0) AS latency, coalesce(sum(cost), 0.0) AS cost, coalesce(sum(cost IS NULL), 0)"
    " AS unpriced_calls, coalesce(sum((prompt_tokens + completion_tokens) * cached), 0) AS cached_answer_tokens"
    " FROM call WHERE role IN ('judge', 'probe') AND ended >= ?"
)


def shard_keys(directory: RunDirectory, limit: int | None) -> frozenset[EpisodeKey]:
    """Return which of the run's first ``limit`` complete conversations the shard ``directory`` is of has to score.

    Its database holds them afterwards, with the scores that they have.
    """
    assert directory.shard is not None
    with RunReader(directory.of_shard(None)) as reader:
        rows = reader.rows(_COMPLETE, (-1 if limit is None else limit,))
    keys = frozenset(EpisodeKey(**dict(row)) for row in directory.shard.share(rows))
    take_over(directory, keys)
    return keys


def key_of(trajectory: Mapping[str, Any]) -> EpisodeKey:
    """Return what makes the conversation that a trajectory document tells of the one it is."""
    return EpisodeKey(**{name: trajectory[name] for name in _NAMES})


def count_calls_since(run: RunReader, tally: ScoreTally, started: float) -> None:
    """Set what ``tally`` has used to what scores took since ``started``, in seconds of the epoch."""
    for name, value in dict(run.rows(_CALLS, (started,))[0]).items():
        setattr(tally, name, value)


def count_scores_since(run: RunReader, tally: ScoreTally, started: float, scorers: Collection[str]) -> int:
    """Set what ``tally`` counts to what the run gained since ``started``; return how many scores ``scorers`` computed."""
    count_calls_since(run, tally, started)
    computed = 0
    tally.failed = Counter()
    for row in run.rows(_SCORES, (started,)):
        if row["judge"] in scorers:
            computed += row["n"]
            continue
        tally.done += row["n"]
        tally.unusable += row["unusable"]
        if row["failure"] is not None:
            tally.failed[row["failure"]] += row["n"]
    return computed
