"""Numbers drawn with characters: bars, sparklines, intervals. Pure functions from numbers to lines of known width."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

_EIGHTHS = " \u258f\u258e\u258d\u258c\u258b\u258a\u2589\u2588"
_HEIGHTS = " \u2581\u2582\u2583\u2584\u2585\u2586\u2587\u2588"


def bar(share: float, cells: int) -> str:
    """Return a horizontal bar: ``share`` in 0..1 of ``cells`` cells, to an eighth of a cell, padded."""
    eighths = round(max(0.0, min(1.0, share if math.isfinite(share) else 0.0)) * cells * 8)
    whole, part = divmod(eighths, 8)
    drawn = _EIGHTHS[8] * whole + (_EIGHTHS[part] if part else "")
    return drawn.ljust(cells)


def sparkline(values: Sequence[float], cells: int | None = None) -> str:
    """Return one column a value, the largest at full height; what is not zero is always to be seen."""
    if cells is not None and cells < len(values):
        values = _regrouped(values, cells)
    top = max(values, default=0.0)
    if top <= 0.0:
        return _HEIGHTS[0] * len(values)
    return "".join(_HEIGHTS[0 if value <= 0 else max(1, round(value / top * 8))] for value in values)


def _regrouped(values: Sequence[float], cells: int) -> list[float]:
    groups = [0.0] * max(1, cells)
    for position, value in enumerate(values):
        groups[position * len(groups) // len(values)] += value
    return groups


@dataclass(frozen=True)
class Point:
    """An estimate with its interval, and what stands at its left."""

    name: str
    value: float
    low: float
    high: float


def axis(points: Sequence[Point], *, zero: bool = False) -> tuple[float, float]:
    """Return the ends of an axis that holds all finite intervals; with ``zero`` it holds zero."""
    ends = [end for point in points for end in (point.low, point.high, point.value) if math.isfinite(end)]
    if zero:
        ends.append(0.0)
    if not ends:
        return 0.0, 1.0
    low, high = min(ends), max(ends)
    if high - low < 1e-9:
        return low - 0.5, high + 0.5
    margin = (high - low) * 0.05
    return low - margin, high + margin


def interval_line(point: Point, low: float, high: float, cells: int, *, zero: bool = False) -> str:
    """Return ``|---o---|`` of one estimate on the axis from ``low`` to ``high``, ``cells`` wide."""

    def place(value: float) -> int:
        clamped = max(low, min(high, value))
        return round((clamped - low) / (high - low) * (cells - 1))

    line = [" "] * cells
    if zero and low <= 0.0 <= high:
        line[place(0.0)] = "\u250a"
    first, last = place(point.low), place(point.high)
    for position in range(first, last + 1):
        line[position] = "\u2500"
    line[first], line[last] = "\u251c", "\u2524"
    line[place(point.value)] = "\u25cf"
    return "".join(line)
