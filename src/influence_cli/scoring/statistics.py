"""Estimates with intervals, agreement, effect sizes, corrections and power: pure functions of numbers.

Everything here is checked against scipy and statsmodels, and the intervals by simulation of their coverage.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

DRAWS = 2_000
LEVEL = 0.95
_FEW = 5
"""With fewer scenarios than this, the interval is over initial states: it speaks of these scenarios only."""


@dataclass(frozen=True)
class Interval:
    """An estimate and its interval; ``units`` says over how many of what it was resampled."""

    value: float
    low: float
    high: float
    n: int
    units: int
    over: str

    @property
    def excludes_zero(self) -> bool:
        """Whether zero lies outside."""
        return self.low > 0.0 or self.high < 0.0


@dataclass(frozen=True)
class Sample:
    """Values with the scenario and the initial state that each came from; all three of length n."""

    values: Array
    scenarios: Sequence[str]
    states: Sequence[str]

    @classmethod
    def named(cls, values: Sequence[float] | Array, scenarios: Sequence[str], states: Sequence[str]) -> Sample:
        """Return a sample from names."""
        return cls(np.asarray(values, np.float64), scenarios, states)

    def clusters(self) -> tuple[npt.NDArray[np.intp], int, str]:
        """Return the cluster of each value, how many there are, and what they are."""
        if len(set(self.scenarios)) >= _FEW:
            return *_coded(self.scenarios), "scenarios"
        return *_coded([f"{a}/{b}" for a, b in zip(self.scenarios, self.states, strict=True)]), "initial states"


def _coded(names: Sequence[str]) -> tuple[npt.NDArray[np.intp], int]:
    known: dict[str, int] = {}
    codes = np.fromiter((known.setdefault(name, len(known)) for name in names), np.intp, len(names))
    return codes, len(known)


def mean_interval(sample: Sample, *, level: float = LEVEL, draws: int = DRAWS, seed: int = 0) -> Interval:
    """Return the mean of a sample with its interval; ValueError for an empty sample.

    Clusters (scenarios; initial states where there are fewer than five scenarios) are resampled whole: resampling within
    them as well would count their inner spread twice (Davison and Hinkley, Bootstrap Methods, 1997, section 3.8).
    """
    codes, count, over = sample.clusters()
    if not len(sample.values):
        raise ValueError("an empty sample has no mean")
    sums = np.bincount(codes, sample.values, count)
    sizes = np.bincount(codes, minlength=count).astype(np.float64)
    value = float(sums.sum() / sizes.sum())
    if count < 2:
        return Interval(value, -math.inf, math.inf, len(sample.values), count, over)
    picks = _picks(count, draws, seed)
    means = (picks @ sums) / (picks @ sizes)
    low, high = _widened(value, means, count, level)
    return Interval(value, low, high, len(sample.values), count, over)


def difference_interval(a: Sample, b: Sample, *, level: float = LEVEL, draws: int = DRAWS, seed: int = 0) -> Interval:
    """Return mean(a) - mean(b) with its interval, clusters that both have resampled together (paired).

    For the targeting gap: a are gameable users, b resilient ones, of the same scenarios. ValueError for an empty sample.
    """
    if not len(a.values) or not len(b.values):
        raise ValueError("an empty sample has no mean")
    both = Sample(np.concatenate([a.values, b.values]), [*a.scenarios, *b.scenarios], [*a.states, *b.states])
    codes, count, over = both.clusters()
    split = len(a.values)
    sums, sizes = [], []
    for part, values in ((codes[:split], a.values), (codes[split:], b.values)):
        sums.append(np.bincount(part, values, count))
        sizes.append(np.bincount(part, minlength=count).astype(np.float64))
    value = float(sums[0].sum() / sizes[0].sum() - sums[1].sum() / sizes[1].sum())
    total = len(both.values)
    if count < 2:
        return Interval(value, -math.inf, math.inf, total, count, over)
    picks = _picks(count, draws, seed)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = (picks @ sums[0]) / (picks @ sizes[0]) - (picks @ sums[1]) / (picks @ sizes[1])
    low, high = _widened(value, found[np.isfinite(found)], count, level)
    return Interval(value, low, high, total, count, over)


def _picks(count: int, draws: int, seed: int) -> Array:
    """Return draws x count: how often each cluster is in each resample."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(count, np.full(count, 1.0 / count), size=draws).astype(np.float64)


def _widened(value: float, found: Array, count: int, level: float) -> tuple[float, float]:
    """Return the percentile interval, its sides widened for few clusters.

    A percentile interval over c clusters is too narrow by sqrt((c - 1) / c) and by normal in place of t quantiles with
    c - 1 degrees of freedom (Hesterberg, What Teachers Should Know about the Bootstrap, 2015, section 4.1.3).
    """
    tail = (1.0 - level) / 2.0
    low, high = np.quantile(found, [tail, 1.0 - tail])
    factor = t_quantile(1.0 - tail, count - 1) / NormalDist().inv_cdf(1.0 - tail) * math.sqrt(count / (count - 1))
    return value - (value - float(low)) * factor, value + (float(high) - value) * factor


def t_quantile(p: float, freedom: int) -> float:
    """Return the quantile of Student's t; the incomplete beta function is inverted by bisection."""
    if p < 0.5:
        return -t_quantile(1.0 - p, freedom)
    low, high = 0.0, 1e3
    while high - low > 1e-10 * max(1.0, high):
        middle = (low + high) / 2.0
        low, high = (middle, high) if _t_cdf(middle, freedom) < p else (low, middle)
    return (low + high) / 2.0


def _t_cdf(t: float, freedom: int) -> float:
    x = freedom / (freedom + t * t)
    return 1.0 - 0.5 * _incomplete_beta(freedom / 2.0, 0.5, x)


def _incomplete_beta(a: float, b: float, x: float) -> float:
    """Return the regularised incomplete beta function by Lentz's continued fraction (Numerical Recipes, section 6.4)."""
    if x <= 0.0 or x >= 1.0:
        return float(x >= 1.0)
    if x > (a + 1.0) / (a + b + 2.0):
        return 1.0 - _incomplete_beta(b, a, 1.0 - x)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)) / a
    tiny = 1e-300
    c, d = 1.0, 1.0 / max(1.0 - (a + b) * x / (a + 1.0), tiny)
    f = d
    for m in range(1, 300):
        for numerator in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1.0 / (1.0 + numerator * d or tiny)
            c = 1.0 + numerator / c or tiny
            f *= c * d
        if abs(c * d - 1.0) < 1e-14:
            break
    return front * f


# -- two groups -------------------------------------------------------------------------------------------------------


def hedges_g(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Return the standardised mean difference with its small-sample correction; None without spread.

    Source: Hedges, Distribution Theory for Glass's Estimator of Effect Size, 1981.
    """
    n, m = len(a), len(b)
    if n < 2 or m < 2:
        return None
    pooled = ((n - 1) * float(np.var(a, ddof=1)) + (m - 1) * float(np.var(b, ddof=1))) / (n + m - 2)
    if pooled <= 0.0:
        return None
    return (float(np.mean(a)) - float(np.mean(b))) / math.sqrt(pooled) * (1.0 - 3.0 / (4.0 * (n + m) - 9.0))


def p_value(interval: Interval, *, level: float = LEVEL) -> float:
    """Return the two-sided p-value of zero that goes with an interval, read as symmetric Student's t."""
    if not math.isfinite(interval.low) or interval.units < 2:
        return 1.0
    freedom = interval.units - 1
    half = (interval.high - interval.low) / 2.0
    if half <= 0.0:
        return 0.0 if interval.value else 1.0
    t = abs(interval.value) / (half / t_quantile(0.5 + level / 2.0, freedom))
    return max(0.0, min(1.0, 2.0 * (1.0 - _t_cdf(t, freedom))))


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Return p-values corrected for their number, family-wise (Holm, 1979)."""
    ordered = sorted(p_values.items(), key=lambda item: item[1])
    corrected: dict[str, float] = {}
    largest = 0.0
    for rank, (name, p) in enumerate(ordered):
        largest = max(largest, min(1.0, (len(ordered) - rank) * p))
        corrected[name] = largest
    return {name: corrected[name] for name in p_values}


def conversations_needed(effect: float, spread: float, *, power: float = 0.8, level: float = LEVEL) -> int | None:
    """Return how many conversations each of two groups needs for ``effect`` to be seen with ``power``.

    ``spread`` is the standard deviation; normal approximation (Cohen, Statistical Power Analysis, 1988, section 2.4).
    """
    if effect == 0.0:
        return None
    z = NormalDist().inv_cdf(1.0 - (1.0 - level) / 2.0) + NormalDist().inv_cdf(power)
    return max(2, math.ceil(2.0 * (z * spread / effect) ** 2))


# -- agreement --------------------------------------------------------------------------------------------------------


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

    Source: Cohen, Weighted kappa, 1968.
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
    return Interval(value, float(low), float(high), len(x), len(x), "pairs")


def total_variation(p: Sequence[float], q: Sequence[float]) -> float:
    """Return half the sum of absolute differences of two distributions over the same choices, 0..1."""
    return 0.5 * math.fsum(abs(x - y) for x, y in zip(p, q, strict=True))
