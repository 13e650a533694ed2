"""The searchers that need no library: every point of a grid, and draws at random.

Both are pure functions of the study's seed and the trial's number, so that they have nothing to remember.
"""

from __future__ import annotations

import math

from pydantic import JsonValue

from influence_cli.errors import InfluenceError
from influence_cli.schemas.frozen import Frozen
from influence_cli.schemas.spaces import Choices, Dimension, Integers, Reals
from influence_cli.schemas.sweeps import Parameters, Study, TrialRecord
from influence_cli.seeding import unit_draw

MOST_POINTS = 100_000


class NoOptions(Frozen):
    """Nothing can be set."""


class Grid:
    """Every combination once, the last dimension fastest."""

    def __init__(self, study: Study, _options: NoOptions) -> None:
        self._space = study.space
        self._sizes = [_size(name, dimension) for name, dimension in study.space.items()]
        self.points = math.prod(self._sizes)
        if self.points > MOST_POINTS:
            raise InfluenceError(f"The grid has {self.points:,} points.", hint="Use --searcher random --trials N.")

    def ask(self, number: int) -> Parameters | None:
        """Return point ``number`` of the grid; None after the last."""
        if number >= self.points:
            return None
        found: Parameters = {}
        for (name, dimension), size in zip(reversed(self._space.items()), reversed(self._sizes), strict=True):
            number, place = divmod(number, size)
            found[name] = dimension.values[place] if isinstance(dimension, Choices) else _low(dimension) + place
        return {name: found[name] for name in self._space}

    def report(self, number: int, step: int, value: float) -> bool:  # noqa: ARG002 - the protocol's signature
        """Return False: no trial is given up."""
        return False

    def tell(self, trial: TrialRecord) -> None:
        """Learn nothing."""

    def close(self) -> None:
        """Release nothing."""


class Random:
    """Each trial drawn for itself."""

    def __init__(self, study: Study, _options: NoOptions) -> None:
        self._study = study
        if study.trials is None:
            raise InfluenceError("A search at random has no end of its own.", hint="Add --trials 24.")

    def ask(self, number: int) -> Parameters | None:
        """Return a draw that depends on seed, number and the dimension's name."""
        return {
            name: _drawn(dimension, unit_draw("sweep", self._study.seed, number, name))
            for name, dimension in self._study.space.items()
        }

    def report(self, number: int, step: int, value: float) -> bool:  # noqa: ARG002 - the protocol's signature
        """Return False: no trial is given up."""
        return False

    def tell(self, trial: TrialRecord) -> None:
        """Learn nothing."""

    def close(self) -> None:
        """Release nothing."""


def grid_points(study: Study) -> int | None:
    """Return how many points a grid over ``study`` has; None where a dimension has no end of them."""
    if any(isinstance(dimension, Reals) for dimension in study.space.values()):
        return None
    return math.prod(_size(name, dimension) for name, dimension in study.space.items())


def _size(name: str, dimension: Dimension) -> int:
    if isinstance(dimension, Reals):
        raise InfluenceError(
            f"A grid cannot hold the range of {name}.", hint="List its values: [a,b,c]; or use --searcher random."
        )
    return len(dimension.values) if isinstance(dimension, Choices) else dimension.high - dimension.low + 1


def _low(dimension: Integers | Reals) -> int:
    return int(dimension.low)


def _drawn(dimension: Dimension, draw: float) -> JsonValue:
    if isinstance(dimension, Choices):
        return dimension.values[int(draw * len(dimension.values))]
    if isinstance(dimension, Integers):
        return dimension.low + int(draw * (dimension.high - dimension.low + 1))
    if dimension.log:
        low, high = math.log(dimension.low), math.log(dimension.high)
        value = math.exp(low + draw * (high - low))
    else:
        value = dimension.low + draw * (dimension.high - dimension.low)
    return min(max(value, dimension.low), dimension.high)
