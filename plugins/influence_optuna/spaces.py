"""Dimensions as Optuna's distributions, and values there and back.

Optuna's categories are plain values; a list or mapping among the choices makes all of them texts of JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from influence_cli.api import Choices, Dimension, Integers, Parameters

Space = Mapping[str, Dimension]


def distributions(space: Space) -> dict[str, BaseDistribution]:
    """Return Optuna's distribution for each dimension."""
    return {name: _distribution(dimension) for name, dimension in space.items()}


def from_optuna(space: Space, values: Mapping[str, Any]) -> Parameters:
    """Return Optuna's values as a sweep's, in the order of ``space``."""
    return {
        name: json.loads(values[name]) if _is_structured(dimension) else values[name]
        for name, dimension in space.items()
    }


def to_optuna(space: Space, parameters: Parameters) -> dict[str, Any]:
    """Return a sweep's values as Optuna's."""
    return {
        name: _text(parameters[name]) if _is_structured(dimension) else parameters[name]
        for name, dimension in space.items()
    }


def _distribution(dimension: Dimension) -> BaseDistribution:
    if isinstance(dimension, Choices):
        values: list[Any] = list(dimension.values)
        return CategoricalDistribution([_text(value) for value in values] if _is_structured(dimension) else values)
    if isinstance(dimension, Integers):
        return IntDistribution(dimension.low, dimension.high)
    return FloatDistribution(dimension.low, dimension.high, log=dimension.log)


def _is_structured(dimension: Dimension) -> bool:
    return isinstance(dimension, Choices) and any(isinstance(value, list | dict) for value in dimension.values)


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
