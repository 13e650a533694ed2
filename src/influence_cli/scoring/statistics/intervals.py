"""Means and differences of means with intervals, for conversations that are alike within scenarios and initial states.

Concept: what is resampled is what another study would have drawn anew. With five scenarios or more these are the
scenarios, each with all its conversations; with fewer, the initial states within each scenario, and the interval speaks of
these scenarios only. Units are resampled whole: resampling within them as well would count their inner spread twice
(Davison and Hinkley, Bootstrap Methods and their Application, 1997, section 3.8).

Method: the rescaling bootstrap (Rao and Wu, Resampling Inference With Complex Survey Data, 1988): of n units n - 1 are
drawn, with weights n / (n - 1), so that the variance is unbiased for few units. The distances of the percentile limits from
the estimate are then multiplied by the ratio of t to normal quantiles: after the expanded percentile interval of Hesterberg
(What Teachers Should Know about the Bootstrap, 2015), who takes further quantiles in place of moving the limits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist
from typing import Self

import numpy as np
import numpy.typing as npt

from influence_cli.scoring.statistics.student import t_quantile

Array = npt.NDArray[np.float64]
Codes = npt.NDArray[np.intp]

DRAWS = 2_000
LEVEL = 0.95
_FEW = 5
_MOST_UNITS = 512
"""More units of a stratum than this are joined at random, which leaves the interval valid and the work bounded."""


@dataclass(frozen=True)
class Interval:
    """An estimate, its interval and standard error; ``units`` of kind ``over`` were resampled.

    Limits are infinite and the error is nan where there are too few units to know.
    """

    value: float
    low: float
    high: float
    n: int
    units: int
    over: str
    error: float
    freedom: int

    @property
    def excludes_zero(self) -> bool:
        """Whether zero lies outside."""
        return self.low > 0.0 or self.high < 0.0


@dataclass(frozen=True)
class Sample:
    """Values with the numbers of the scenario and of the initial state that each came from; arrays of length n.

    Numbers count from zero without large gaps; an initial state belongs to one scenario.
    """

    values: Array
    scenarios: Codes
    states: Codes

    @classmethod
    def named(cls, values: Sequence[float] | Array, scenarios: Sequence[str], states: Sequence[str]) -> Self:
        """Return a sample from names; states of different scenarios are different whatever they are called."""
        pairs = [f"{scenario}/{state}" for scenario, state in zip(scenarios, states, strict=True)]
        return cls(np.asarray(values, np.float64), _coded(scenarios), _coded(pairs))

    def __len__(self) -> int:
        """Return the number of values."""
        return len(self.values)


@dataclass(frozen=True)
class _Units:
    """The unit of each value, units numbered stratum by stratum; how many units each stratum has; what they are."""

    codes: Codes
    sizes: tuple[int, ...]
    over: str

    @property
    def freedom(self) -> int:
        return sum(self.sizes) - len(self.sizes)


def mean_interval(sample: Sample, *, level: float = LEVEL, draws: int = DRAWS, seed: int = 0) -> Interval:
    """Return the mean of a sample with its interval; ValueError for an empty sample."""
    if not len(sample):
        raise ValueError("an empty sample has no mean")
    units = _units(sample.scenarios, sample.states)
    sums, sizes = _totals(units, units.codes, sample.values)
    value = float(sums.sum() / sizes.sum())
    if units.freedom < 1:
        return _unknown(value, len(sample), units)
    weights = _weights(units.sizes, draws, seed)
    return _interval(value, (weights @ sums) / (weights @ sizes), len(sample), units, level)


def difference_interval(a: Sample, b: Sample, *, level: float = LEVEL, draws: int = DRAWS, seed: int = 0) -> Interval:
    """Return mean(a) - mean(b) with its interval, units that both have resampled together (paired).

    Scenarios and states of both must be numbered alike. ValueError for an empty sample.
    """
    if not len(a) or not len(b):
        raise ValueError("an empty sample has no mean")
    units = _units(np.concatenate([a.scenarios, b.scenarios]), np.concatenate([a.states, b.states]))
    first = _totals(units, units.codes[: len(a)], a.values)
    second = _totals(units, units.codes[len(a) :], b.values)
    value = float(first[0].sum() / first[1].sum() - second[0].sum() / second[1].sum())
    total = len(a) + len(b)
    if units.freedom < 1:
        return _unknown(value, total, units)
    weights = _weights(units.sizes, draws, seed)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = (weights @ first[0]) / (weights @ first[1]) - (weights @ second[0]) / (weights @ second[1])
    found = found[np.isfinite(found)]
    return _interval(value, found, total, units, level) if len(found) else _unknown(value, total, units)


def _coded(names: Sequence[str]) -> Codes:
    known: dict[str, int] = {}
    return np.fromiter((known.setdefault(name, len(known)) for name in names), np.intp, len(names))


def _dense(codes: Codes) -> tuple[Codes, int]:
    """Return codes without gaps, in the same order, and how many there are."""
    present = np.bincount(codes) > 0
    return (np.cumsum(present) - 1)[codes], int(present.sum())


def _units(scenarios: Codes, states: Codes) -> _Units:
    """Return what is resampled: scenarios, or initial states within few scenarios."""
    scenario, count = _dense(scenarios)
    if count >= _FEW:
        return _joined(_Units(scenario, (count,), "scenarios"))
    state, states_count = _dense(states)
    home = np.zeros(states_count, np.intp)
    home[state] = scenario
    place = np.empty(states_count, np.intp)
    place[np.argsort(home, kind="stable")] = np.arange(states_count)
    sizes = tuple(np.bincount(home, minlength=count).tolist())
    if min(sizes) < 2:
        sizes = (states_count,)  # the spread within a scenario of one state cannot be known: take all as one stratum
    return _joined(_Units(place[state], sizes, "initial states"))


def _joined(units: _Units) -> _Units:
    """Return units of which no stratum has more than can be resampled fast."""
    if max(units.sizes) <= _MOST_UNITS:
        return units
    new: list[Codes] = []
    sizes: list[int] = []
    for size in units.sizes:
        kept = min(size, _MOST_UNITS)
        order = np.random.default_rng(size).permutation(size) if size > kept else np.arange(size)
        new.append(np.asarray(order % kept + sum(sizes), np.intp))
        sizes.append(kept)
    return _Units(np.concatenate(new)[units.codes], tuple(sizes), units.over)


def _totals(units: _Units, codes: Codes, values: Array) -> tuple[Array, Array]:
    count = sum(units.sizes)
    sums = np.asarray(np.bincount(codes, values, count), np.float64)
    return sums, np.bincount(codes, minlength=count).astype(np.float64)


@lru_cache(maxsize=16)
def _weights(sizes: tuple[int, ...], draws: int, seed: int) -> Array:
    """Return draws x units: the weight of each unit in each resample."""
    rng = np.random.default_rng(seed)
    parts = []
    for size in sizes:
        counts = rng.multinomial(size - 1, np.full(size, 1.0 / size), size=draws)
        parts.append(counts * (size / (size - 1)))
    return np.concatenate(parts, axis=1)


def _interval(value: float, found: Array, n: int, units: _Units, level: float) -> Interval:
    tail = (1.0 - level) / 2.0
    low, high = np.quantile(found, [tail, 1.0 - tail])
    factor = t_quantile(1.0 - tail, units.freedom) / NormalDist().inv_cdf(1.0 - tail)
    return Interval(
        value=value,
        low=value - max(0.0, value - float(low)) * factor,
        high=value + max(0.0, float(high) - value) * factor,
        n=n,
        units=sum(units.sizes),
        over=units.over,
        error=float(found.std(ddof=1)),
        freedom=units.freedom,
    )


def _unknown(value: float, n: int, units: _Units) -> Interval:
    return Interval(value, -math.inf, math.inf, n, sum(units.sizes), units.over, math.nan, 0)
