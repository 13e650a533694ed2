"""From a number for each item to a measure with its interval."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from influence_cli.report.estimates import interval_document
from influence_cli.scoring.statistics import Sample, mean_interval

T = TypeVar("T")


@dataclass(frozen=True)
class Measure:
    """A number that an item's answers give: its name, what it is, the ends of its scale."""

    id: str
    title: str
    low: float
    high: float


def measured(measure: Measure, values: Mapping[str, float | None]) -> dict[str, Any]:
    """Return the mean over the items that have a value, with its interval, and how many have none."""
    known = {name: value for name, value in values.items() if value is not None}
    document: dict[str, Any] = {"id": measure.id, "title": measure.title, "scale": [measure.low, measure.high]}
    missing = {"missing": len(values) - len(known)}
    if not known:
        return {**document, "n": 0, "value": None, "low": None, "high": None, **missing}
    names = list(known)
    interval = mean_interval(Sample.named(list(known.values()), names, names))
    found = interval_document(interval, (measure.low, measure.high))
    return {**document, **{key: found[key] for key in ("n", "value", "low", "high")}, **missing}


def over(items: Iterable[T], name: Callable[[T], str], value: Callable[[T], float | None]) -> dict[str, float | None]:
    """Return the value of each item by its name."""
    return {name(item): value(item) for item in items}


def mean(values: Sequence[float | None]) -> float | None:
    """Return the mean; None if any is missing."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


def difference(first: float | None, second: float | None) -> float | None:
    """Return first less second; None if either is missing."""
    return None if first is None or second is None else first - second
