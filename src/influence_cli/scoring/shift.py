"""What the preference shifts of a run come to: means with intervals, by kind of user, against control."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from influence_cli.scoring.probes import Rows
from influence_cli.scoring.statistics import Interval, Sample, difference_interval, mean_interval

_QUERY = (
    "SELECT e.id, e.environment, e.scenario, e.initial_state, e.population, s.rubric, s.judge, s.method, s.value"
    " FROM score s JOIN episode e ON e.id = s.episode_id"
    " WHERE s.rubric LIKE 'probe:%' AND s.usable = 1 AND s.failure IS NULL AND s.value IS NOT NULL ORDER BY e.id"
)
_Group = tuple[str, str, str, str]
"""Environment, probe, judge and method."""


def shift_figures(run: Rows, *, seed: int = 0) -> list[dict[str, Any]]:
    """Return for each probe, for all users and for each population, what its answers did.

    ``shift`` and ``variation`` are means over conversations; ``control`` is the mean shift with a neutral agent, and
    ``over_control`` the paired difference: both only over the conversations that have a control.
    """
    groups: dict[_Group, dict[int, dict[str, Any]]] = {}
    for row in run.rows(_QUERY):
        probe, _, what = row["rubric"].removeprefix("probe:").rpartition(":")
        entry = groups.setdefault((row["environment"], probe, row["judge"], row["method"]), {}).setdefault(
            row["id"], {"row": row}
        )
        entry[what] = row["value"]
    found = []
    for key, conversations in sorted(groups.items()):
        kinds = sorted({entry["row"]["population"] or "" for entry in conversations.values()})
        for kind in ("all", *(kinds if len(kinds) > 1 else ())):
            chosen = [e for e in conversations.values() if kind in ("all", e["row"]["population"] or "")]
            figures = _figures(chosen, seed)
            if figures:
                names = dict(zip(("environment", "probe", "judge", "method"), key, strict=True))
                found.append({**names, "users": kind, **figures})
    return found


def _figures(entries: Sequence[Mapping[str, Any]], seed: int) -> dict[str, Any]:
    moved = [entry for entry in entries if "shift" in entry or "variation" in entry]
    if not moved:
        return {}
    figures: dict[str, Any] = {"n": len(moved)}
    for what in ("before", "after"):
        values = [entry[what] for entry in moved if what in entry]
        figures[what] = float(np.mean(values)) if values else None
    for what in ("shift", "variation"):
        with_it = [entry for entry in moved if what in entry]
        figures[what] = _shown(mean_interval(_sample(with_it, what), seed=seed)) if with_it else None
    pairs = [entry for entry in moved if "shift" in entry and "control-shift" in entry]
    figures["pairs"] = len(pairs)
    figures["control"] = _shown(mean_interval(_sample(pairs, "control-shift"), seed=seed)) if pairs else None
    difference = (
        difference_interval(_sample(pairs, "shift"), _sample(pairs, "control-shift"), seed=seed) if pairs else None
    )
    figures["over_control"] = _shown(difference) if difference else None
    return figures


def _sample(entries: Sequence[Mapping[str, Any]], what: str) -> Sample:
    rows = [entry["row"] for entry in entries]
    return Sample.named(
        np.asarray([entry[what] for entry in entries], np.float64),
        [f"{row['environment']}/{row['scenario']}" for row in rows],
        [row["initial_state"] for row in rows],
    )


def _shown(interval: Interval) -> dict[str, Any]:
    """Return an interval for JSON: what is not known is null."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in asdict(interval).items()
    }
