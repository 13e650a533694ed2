"""How far two raters of the same things agree.

Concept: a rating is a position on the rubric's answers, as a number (its mean where it is a distribution); agreement by
rank takes it as it is, agreement by category takes the nearest answer. Intervals resample whole conversations, because
turns of one conversation are not independent.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from influence_cli.scoring.statistics import pairs_interval, spearman, weighted_kappa

_DRAWS = 1_000
_FEWER_DRAWS = 200
_MANY = 5_000

Measure = Callable[[Sequence[float], Sequence[float]], float | None]


@dataclass(frozen=True)
class Pairs:
    """Ratings ``a`` and ``b`` of the same things, the conversation of each, and the positions of all answers."""

    a: Sequence[float]
    b: Sequence[float]
    conversations: Sequence[int]
    answers: Sequence[float]


def agreement(pairs: Pairs, *, seed: int = 0) -> dict[str, Any]:
    """Return the figures of two raters' agreement; those that are undefined are None."""
    first, second = nearest(pairs.a, pairs.answers), nearest(pairs.b, pairs.answers)
    count = len(pairs.answers)
    confusion = np.zeros((count, count), np.int64)
    np.add.at(confusion, (first, second), 1)
    a, b = np.asarray(pairs.a, np.float64), np.asarray(pairs.b, np.float64)

    def kappa(x: Sequence[float], y: Sequence[float]) -> float | None:
        return weighted_kappa(nearest(x, pairs.answers), nearest(y, pairs.answers), count)

    return {
        "n": len(pairs.a),
        "conversations": len(set(pairs.conversations)),
        "mean_absolute_difference": float(np.abs(a - b).mean()),
        "bias": float((a - b).mean()),
        "exact": float(np.mean(np.asarray(first) == np.asarray(second))),
        "spearman": _interval(pairs, spearman, seed),
        "weighted_kappa": _interval(pairs, kappa, seed),
        "base_rates": {"a": _shares(confusion.sum(1)), "b": _shares(confusion.sum(0))},
        "confusion": confusion.tolist(),
        "answers": list(pairs.answers),
    }


def nearest(values: Sequence[float], answers: Sequence[float]) -> list[int]:
    """Return the index of the answer nearest to each value; ``answers`` are in rising order."""
    places = np.asarray(answers, np.float64)
    middles = (places[1:] + places[:-1]) / 2.0
    found: npt.NDArray[np.intp] = np.searchsorted(middles, np.asarray(values, np.float64), side="right")
    return [int(place) for place in found]


def _interval(pairs: Pairs, measure: Measure, seed: int) -> dict[str, float] | None:
    """Return a measure with its bootstrap interval over conversations; None where it is undefined."""
    places: dict[int, list[int]] = {}
    for place, conversation in enumerate(pairs.conversations):
        places.setdefault(conversation, []).append(place)
    clusters = [np.asarray(found) for found in places.values()]
    a, b = np.asarray(pairs.a, np.float64), np.asarray(pairs.b, np.float64)

    def of_clusters(picked: Sequence[float], _: Sequence[float]) -> float | None:
        chosen = np.concatenate([clusters[int(number)] for number in picked])
        return measure(a[chosen].tolist(), b[chosen].tolist())

    numbers = [float(number) for number in range(len(clusters))]
    draws = _DRAWS if len(pairs.a) <= _MANY else _FEWER_DRAWS
    found = pairs_interval(numbers, numbers, of_clusters, draws=draws, seed=seed)
    if found is None or not math.isfinite(found.low):
        return None
    return {"value": found.value, "low": found.low, "high": found.high}


def _shares(counts: npt.NDArray[np.int64]) -> list[float]:
    total = max(1, int(counts.sum()))
    return [float(count) / total for count in counts]
