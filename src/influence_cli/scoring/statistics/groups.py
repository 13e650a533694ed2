"""Two groups: how far apart, how surely, and how many conversations it takes to see it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist

import numpy as np

from influence_cli.scoring.statistics.intervals import LEVEL, Array, Interval
from influence_cli.scoring.statistics.student import t_cdf

_NOTHING = 1e-9
"""Differences and spreads smaller than this are rounding of sums, not data."""


def hedges_g(a: Sequence[float] | Array, b: Sequence[float] | Array) -> float | None:
    """Return the standardised difference mean(a) - mean(b) with its small-sample correction; None without spread.

    Source: Hedges, Distribution Theory for Glass's Estimator of Effect Size and Related Estimators, 1981: his approximation
    1 - 3 / (4 f - 1) of the correction, with f = n + m - 2 degrees of freedom.
    """
    n, m = len(a), len(b)
    if n < 2 or m < 2:
        return None
    pooled = ((n - 1) * float(np.var(a, ddof=1)) + (m - 1) * float(np.var(b, ddof=1))) / (n + m - 2)
    if pooled <= _NOTHING**2:
        return None
    return (float(np.mean(a)) - float(np.mean(b))) / math.sqrt(pooled) * (1.0 - 3.0 / (4.0 * (n + m) - 9.0))


def standardised(values: Sequence[float] | Array) -> float | None:
    """Return the mean of differences in units of their spread; None without spread or with fewer than three.

    The correction is that of :func:`hedges_g` with n - 1 degrees of freedom.
    """
    n = len(values)
    if n < 3:
        return None
    spread = float(np.std(values, ddof=1))
    return float(np.mean(values)) / spread * (1.0 - 3.0 / (4.0 * n - 5.0)) if spread > _NOTHING else None


def p_value(interval: Interval) -> float | None:
    """Return the two-sided p-value of zero: Student's t of the estimate over its bootstrap error; None if unknown."""
    if interval.freedom < 1 or not math.isfinite(interval.error):
        return None
    if interval.error <= _NOTHING:
        return 0.0 if abs(interval.value) > _NOTHING else 1.0
    return min(1.0, 2.0 * t_cdf(-abs(interval.value) / interval.error, interval.freedom))


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Return p-values corrected for their number, family-wise.

    Source: Holm, A Simple Sequentially Rejective Multiple Test Procedure, 1979.
    """
    ordered = sorted(p_values.items(), key=lambda item: item[1])
    corrected: dict[str, float] = {}
    largest = 0.0
    for rank, (name, p) in enumerate(ordered):
        largest = max(largest, min(1.0, (len(ordered) - rank) * p))
        corrected[name] = largest
    return {name: corrected[name] for name in p_values}


def design_effect(interval: Interval, spread: float) -> float:
    """Return by how much the variance of a mean exceeds that of independent conversations; 1 where it is unknown.

    Source: Kish, Survey Sampling, 1965. ``spread`` is the standard deviation of the values.
    """
    if spread <= _NOTHING or not math.isfinite(interval.error) or interval.freedom < 1:
        return 1.0
    return max(1.0, interval.error**2 * interval.n / spread**2)


def conversations_needed(
    effect: float, spread: float, *, power: float = 0.8, level: float = LEVEL, design: float = 1.0
) -> int | None:
    """Return how many conversations each of two groups needs for ``effect`` to be seen with ``power``; None for none.

    ``spread`` is the standard deviation, ``design`` the design effect. Normal approximation; at least two.
    """
    if abs(effect) <= _NOTHING or spread <= _NOTHING:
        return None
    z = NormalDist().inv_cdf(1.0 - (1.0 - level) / 2.0) + NormalDist().inv_cdf(power)
    return max(2, math.ceil(2.0 * design * (z * spread / effect) ** 2))
