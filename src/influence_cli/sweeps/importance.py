"""How much of an objective's variance each parameter explains by itself, without a library.

The share of a parameter is omega squared (Hays, Statistics for Psychologists, 1963): the variance between groups of trials
that share its value (or, of a range, a third of it by rank) over the variance of all, less what as many groups by lot would
explain. What parameters do only together is in no share; shares are scaled to sum to one.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import fmean

from influence_cli.schemas.spaces import Choices, Dimension
from influence_cli.schemas.sweeps import Study, TrialRecord
from influence_cli.sweeps.searchers import NoOptions

_GROUPS = 3


class VarianceImportance:
    """The share of variance that each parameter explains by itself."""

    def __init__(self, _options: NoOptions) -> None:
        pass

    def measure(self, study: Study, trials: Sequence[TrialRecord], objective: int) -> Mapping[str, float]:
        """Return the shares; nothing where no parameter explains anything."""
        values = [trial.readings[objective].value for trial in trials]
        found = {
            name: _explained(_groups(dimension, [trial.parameters[name] for trial in trials]), values)
            for name, dimension in study.space.items()
        }
        whole = sum(found.values())
        return {name: share / whole for name, share in found.items()} if whole > 0.0 else {}


def _groups(dimension: Dimension, parameters: Sequence[object]) -> list[str]:
    """Return the group of each trial: its value, or the third of a range that it is in by rank."""
    keys = [json.dumps(value, sort_keys=True) for value in parameters]
    if isinstance(dimension, Choices) or len(set(keys)) <= _GROUPS:
        return keys
    order = sorted(range(len(keys)), key=lambda index: float(str(parameters[index])))
    places = dict.fromkeys(keys, "")
    for rank, index in enumerate(order):
        places[keys[index]] = places[keys[index]] or str(rank * _GROUPS // len(keys))
    return [places[key] for key in keys]


def _explained(groups: Sequence[str], values: Sequence[float]) -> float:
    """Return omega squared, at least 0: what groups explain of the variance beyond what chance would."""
    members: dict[str, list[float]] = defaultdict(list)
    for group, value in zip(groups, values, strict=True):
        members[group].append(value)
    freedom = len(values) - len(members)
    if len(members) < 2 or freedom < 1:
        return 0.0
    mean = fmean(values)
    total = sum((value - mean) ** 2 for value in values)
    between = sum(len(each) * (fmean(each) - mean) ** 2 for each in members.values())
    within = max(0.0, total - between) / freedom
    if total <= 1e-18:
        return 0.0
    return max(0.0, (between - (len(members) - 1) * within) / (total + within))
