"""Values as a person reads them: short, aligned, never a guess where there is none."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any

NONE = "\u00b7"
"""Stands where there is nothing."""


def number(value: float | None, digits: int = 2) -> str:
    """Return a number with ``digits`` decimals; a dot where there is none."""
    return NONE if value is None else f"{value:.{digits}f}"


def count(value: int | None) -> str:
    """Return a whole number; nothing for zero would be read as missing, so zero is 0."""
    return NONE if value is None else f"{value:,}"


def age(created: str, now: float | None = None) -> str:
    """Return how long ago an ISO time was, in its largest unit."""
    try:
        then = datetime.fromisoformat(created).timestamp()
    except ValueError:
        return NONE
    seconds = max(0.0, (time.time() if now is None else now) - then)
    for size, unit in ((86_400 * 365, "y"), (86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return f"{int(seconds)} s"


def cell(value: Any, name: str) -> str:
    """Return the text of a cell of the table of trajectories."""
    if value is None or value == "":
        return NONE
    if isinstance(value, float):
        return number(value, 3 if name == "veto" else 2)
    if name in ("failures", "labels", "flag") and value == 0:
        return NONE
    if name == "flag":
        return "\u2691"
    return str(value)


def share(value: float) -> str:
    """Return a probability as a percentage that never rounds something to nothing."""
    percent = value * 100
    if percent == 0:
        return "0%"
    if 0 < percent < 0.1:
        return "<0.1%"
    return f"{percent:.0f}%" if percent >= 9.95 else f"{percent:.1f}%"
