"""What can be searched of one setting, and how a person writes it.

    [1, 4, 16]          one of these          int(1,8)  1..8         a whole number, ends included
    log(1e-6,1e-4)      by its logarithm      uniform(0,1)  0.0..1   a number

Invariant: what :func:`written` returns, :func:`parse_dimension` reads back as the same dimension.
"""

from __future__ import annotations

import json
import math
import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, JsonValue, PlainSerializer

from influence_cli.schemas.frozen import Frozen

_CALL = re.compile(r"(int|uniform|log)\s*\(\s*([^,()]+?)\s*,\s*([^,()]+?)\s*\)\Z")
_RANGE = re.compile(r"(\S+?)\s*\.\.\s*(\S+)\Z")
_WHOLE = re.compile(r"[-+]?[0-9]+\Z")
_FORMS = "write [a,b,c], low..high, int(low,high), uniform(low,high) or log(low,high)"
_MOST_DIGITS = 20


class Choices(Frozen):
    """One of several values, of any kind."""

    values: tuple[JsonValue, ...] = Field(min_length=1, description="Each once.")


class Integers(Frozen):
    """A whole number."""

    low: int = Field(description="The least.")
    high: int = Field(description="The largest, included.")


class Reals(Frozen):
    """A number."""

    low: float = Field(description="The least.")
    high: float = Field(description="The largest.")
    log: bool = Field(default=False, description="Whether it is searched by its logarithm.")


Dimension = Choices | Integers | Reals


def parse_dimension(value: Any) -> Dimension:
    """Return the dimension that ``value`` (a list, a text) describes; ValueError with what is wrong with it."""
    if isinstance(value, Choices | Integers | Reals):
        return value
    if isinstance(value, list | tuple):
        return _choices(list(value))
    if not isinstance(value, str):
        raise ValueError(f"{_shown(value)} is one value; {_FORMS}")  # noqa: TRY004 - pydantic wants this one
    text = value.strip()
    call = _CALL.match(text)
    if call is not None:
        kind, low, high = call.groups()
        if kind == "int":
            return _integers(_whole(low), _whole(high))
        return _reals(_number(low), _number(high), log=kind == "log")
    between = _RANGE.match(text)
    if between is not None:
        low, high = between.groups()
        if _WHOLE.match(low) and _WHOLE.match(high):
            return _integers(_whole(low), _whole(high))
        return _reals(_number(low), _number(high), log=False)
    raise ValueError(f"{_shown(value)} is no space; {_FORMS}")


def written(dimension: Dimension) -> Any:
    """Return ``dimension`` as it is written: a list, or a text."""
    if isinstance(dimension, Choices):
        return list(dimension.values)
    if isinstance(dimension, Integers):
        return f"int({dimension.low},{dimension.high})"
    return f"{'log' if dimension.log else 'uniform'}({dimension.low!r},{dimension.high!r})"


def ends(dimension: Dimension) -> tuple[JsonValue, ...]:
    """Return the values that stand for all: every choice, or both ends."""
    return dimension.values if isinstance(dimension, Choices) else (dimension.low, dimension.high)


def _choices(values: list[Any]) -> Choices:
    if not values:
        raise ValueError("the list is empty")
    keys = [json.dumps(value, sort_keys=True) for value in values]
    twice = next((key for index, key in enumerate(keys) if key in keys[:index]), None)
    if twice is not None:
        raise ValueError(f"{twice[:40]} stands twice in the list")
    return Choices(values=tuple(values))


def _integers(low: int, high: int) -> Integers:
    if low >= high:
        raise ValueError(f"the lower end {low} must be below the upper end {high}")
    return Integers(low=low, high=high)


def _reals(low: float, high: float, *, log: bool) -> Reals:
    if low >= high:
        raise ValueError(f"the lower end {low:g} must be below the upper end {high:g}")
    if log and low <= 0.0:
        raise ValueError(f"a logarithm needs numbers above zero, not {low:g}")
    if not math.isfinite(high - low):
        raise ValueError("the ends are too far apart")
    return Reals(low=low, high=high, log=log)


def _whole(text: str) -> int:
    if not _WHOLE.match(text) or len(text) > _MOST_DIGITS:
        raise ValueError(f"{_shown(text)} is no whole number")
    return int(text)


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"{_shown(text)} is no number") from None
    if not math.isfinite(value):
        raise ValueError(f"{_shown(text)} is no number to search up to")
    return value


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:59]}\u2026"


Space = dict[str, Annotated[Dimension, BeforeValidator(parse_dimension), PlainSerializer(written)]]
"""Dimensions by the name of what is searched; in files as they are written."""
