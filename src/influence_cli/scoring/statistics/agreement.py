"""How far two sides agree."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from influence_cli.scoring.statistics.intervals import LEVEL, Array, Interval


def ranks(values: Sequence[float]) -> Array:
    """Return ranks from 1, ties sharing their mean."""
    given = np.asarray(values, np.float64)
    order = np.argsort(given, kind="stable")
    found = np.empty(len(given))
    found[order] = np.arange(1, len(given) + 1)
    _, group, counts = np.unique(given, return_inverse=True, return_counts=True)
    return np.asarray((np.bincount(group, found) / counts)[group], np.float64)


def spearman(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Return the rank correlation; None where one side does not vary or there are fewer than three pairs."""
    if len(a) != len(b):
        raise ValueError("rank correlation needs pairs")
    if len(a) < 3:
        return None
    x, y = ranks(a), ranks(b)
    x, y = x - x.mean(), y - y.mean()
    below = math.sqrt(float(x @ x) * float(y @ y))
    return float(x @ y) / below if below > 0.0 else None


def weighted_kappa(a: Sequence[int], b: Sequence[int], categories: int) -> float | None:
    """Return Cohen's kappa with quadratic weights over categories 0..categories-1; None if chance agrees fully.

    Source: Cohen, Weighted kappa: Nominal scale agreement with provision for scaled disagreement or partial credit, 1968.
    """
    if len(a) != len(b) or not len(a):
        raise ValueError("agreement needs pairs")
    table = np.zeros((categories, categories))
    np.add.at(table, (np.asarray(a), np.asarray(b)), 1.0)
    table /= table.sum()
    index = np.arange(categories)
    weights = (index[:, None] - index[None, :]) ** 2 / max(1, categories - 1) ** 2
    expected = float((np.outer(table.sum(1), table.sum(0)) * weights).sum())
    return 1.0 - float((table * weights).sum()) / expected if expected > 0.0 else None


def pairs_interval(
    a: Sequence[float],
    b: Sequence[float],
    measure: Callable[[Sequence[float], Sequence[float]], float | None],
    *,
    level: float = LEVEL,
    draws: int = 1_000,
    seed: int = 0,
) -> Interval | None:
    """Return an agreement measure of pairs with its percentile interval over pairs; None where it is undefined."""
    value = measure(a, b)
    if value is None:
        return None
    rng = np.random.default_rng(seed)
    x, y = np.asarray(a), np.asarray(b)
    found = []
    for _ in range(draws):
        picked = rng.integers(0, len(x), len(x))
        again = measure(x[picked].tolist(), y[picked].tolist())
        if again is not None:
            found.append(again)
    tail = (1.0 - level) / 2.0
    low, high = np.quantile(found, [tail, 1.0 - tail]) if found else (-math.inf, math.inf)
    error = float(np.std(found, ddof=1)) if len(found) > 1 else math.nan
    return Interval(value, float(low), float(high), len(x), len(x), "pairs", error, len(x) - 1)


def total_variation(p: Sequence[float], q: Sequence[float]) -> float:
    """Return half the sum of absolute differences of two distributions over the same choices, 0..1."""
    return 0.5 * math.fsum(abs(x - y) for x, y in zip(p, q, strict=True))
