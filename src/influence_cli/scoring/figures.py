"""What the scores of a run come to: means with intervals by rubric and judge, and how far judges disagree.

Invariant: failed and unusable scores enter no mean and are counted beside it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import orjson

from influence_cli.scoring.agreement import Pairs, agreement
from influence_cli.scoring.probes import Rows
from influence_cli.scoring.statistics import Sample, mean_interval

_MEANS = (
    "SELECT s.rubric, s.judge, s.method, s.episode_id, e.environment, e.scenario, e.initial_state, avg(s.value) AS value"
    " FROM score s JOIN episode e ON e.id = s.episode_id"
    " WHERE s.usable = 1 AND s.failure IS NULL AND s.value IS NOT NULL"
    " GROUP BY s.rubric, s.judge, s.method, s.episode_id, s.rubric_hash"
    " ORDER BY s.rubric, s.judge, s.method, s.episode_id, max(s.ended), max(s.id)"
)
_COUNTS = (
    "SELECT rubric, judge, method, count(*) AS n, sum(failure NOT NULL) AS failed,"
    " sum(usable = 0 AND failure IS NULL) AS unusable, min(distribution) AS first, max(distribution) AS last"
    " FROM score GROUP BY rubric, judge, method ORDER BY 1, 2, 3"
)
_RATINGS = (
    "SELECT episode_id, turn, rubric, judge, method, value, distribution FROM score"
    " WHERE usable = 1 AND failure IS NULL AND method != 'computed' AND rubric NOT LIKE 'probe:%' ORDER BY ended"
)
_FEWEST = 3

Rater = tuple[str, str]
"""Judge and method."""


@dataclass(frozen=True)
class Rating:
    """A judge's answer as a position on the answers, which are in rising order."""

    position: float
    answers: tuple[float, ...] = ()


Ratings = dict[str, dict[Rater, dict[tuple[int, int], Rating]]]
"""By rubric and rater: the rating of each episode and turn."""


def score_figures(
    run: Rows, wanted: Callable[[str, str], bool] = lambda _rubric, _judge: True, *, seed: int = 0
) -> list[dict[str, Any]]:
    """Return mean, interval and counts by rubric, judge and method, of the rubrics and judges that are ``wanted``.

    Of two wordings of a rubric, the one that a conversation was asked last enters the mean.
    """
    values: dict[tuple[str, str, str], dict[int, Any]] = {}
    for row in run.rows(_MEANS):
        values.setdefault((row["rubric"], row["judge"], row["method"]), {})[row["episode_id"]] = row
    found = []
    for row in run.rows(_COUNTS):
        if not wanted(row["rubric"], row["judge"]):
            continue
        entry = {name: row[name] for name in ("rubric", "judge", "method", "n", "failed", "unusable")}
        rows = list(values.get((row["rubric"], row["judge"], row["method"]), {}).values())
        found.append({**entry, "conversations": len(rows), **_mean(rows, seed, _ends(row))})
    return found


def _ends(row: Any) -> tuple[float, float]:
    """Return the ends of the scale that was answered on, the widest of two; infinite where there is none."""
    answers = [answer for text in (row["first"], row["last"]) if text for answer in orjson.loads(text)]
    try:
        values = [float(answer) for answer in answers]
    except ValueError:
        values = []
    return (min(values), max(values)) if values else (-math.inf, math.inf)


def _mean(rows: list[Any], seed: int, ends: tuple[float, float]) -> dict[str, float | None]:
    """Return the mean with its interval, which ends where the scale ends."""
    if not rows:
        return {"mean": None, "low": None, "high": None}
    sample = Sample.named(
        np.asarray([row["value"] for row in rows], np.float64),
        [f"{row['environment']}/{row['scenario']}" for row in rows],
        [row["initial_state"] for row in rows],
    )
    interval = mean_interval(sample, seed=seed)
    sides = (interval.low, max(ends[0], interval.low)), (interval.high, min(ends[1], interval.high))
    low, high = (bounded if np.isfinite(side) else None for side, bounded in sides)
    return {"mean": interval.value, "low": low, "high": high}


def ratings_of(run: Rows, rubrics: Collection[str] | None = None) -> Ratings:
    """Return what judges answered, usable answers only; of two to one question the later one."""
    found: Ratings = {}
    for row in run.rows(_RATINGS):
        if rubrics is not None and row["rubric"] not in rubrics:
            continue
        rating = _rating(row)
        if rating is not None:
            place = (row["episode_id"], row["turn"])
            found.setdefault(row["rubric"], {}).setdefault((row["judge"], row["method"]), {})[place] = rating
    return found


def _rating(row: Any) -> Rating | None:
    shares: Mapping[str, float] = orjson.loads(row["distribution"]) if row["distribution"] else {}
    if row["value"] is not None:
        return Rating(float(row["value"]), tuple(sorted(float(answer) for answer in shares)))
    if not shares:
        return None
    mean = sum(place * share for place, share in enumerate(shares.values()))
    return Rating(mean, tuple(float(place) for place in range(len(shares))))


def answers_of(ratings: Mapping[Rater, Mapping[tuple[int, int], Rating]], extra: Collection[float] = ()) -> list[float]:
    """Return the positions of all answers of a rubric: those that judges were given, else whole numbers that span."""
    given = {answer for rated in ratings.values() for rating in rated.values() for answer in rating.answers}
    if given:
        return sorted(given | set(extra))
    values = [rating.position for rated in ratings.values() for rating in rated.values()] + list(extra)
    low, high = int(np.floor(min(values))), int(np.ceil(max(values)))
    return [float(number) for number in range(low, max(high, low + 1) + 1)]


def disagreements(run: Rows, rubrics: Collection[str] | None = None, *, seed: int = 0) -> list[dict[str, Any]]:
    """Return for each rubric how far each two judges agree on what both rated."""
    return [
        {"rubric": rubric, "a": "/".join(a), "b": "/".join(b), **agreement(pairs, seed=seed)}
        for rubric, raters in sorted(ratings_of(run, rubrics).items())
        for a, b, pairs in _pairs(raters)
    ]


def _pairs(raters: Mapping[Rater, Mapping[tuple[int, int], Rating]]) -> Iterator[tuple[Rater, Rater, Pairs]]:
    answers = answers_of(raters)
    for a, b in combinations(sorted(raters), 2):
        both = sorted(set(raters[a]) & set(raters[b]))
        if len(both) >= _FEWEST:
            first, second = ([raters[rater][place].position for place in both] for rater in (a, b))
            yield a, b, Pairs(first, second, [episode for episode, _ in both], answers)
