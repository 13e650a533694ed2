"""What a sweep will take, before it is begun: its trials where they are known, its space where they are not."""

from __future__ import annotations

from typing import Any

from influence_cli.listening import Listener
from influence_cli.schemas.spaces import written
from influence_cli.schemas.sweeps import Parameters
from influence_cli.sittings.sweep.preparing import Prepared
from influence_cli.sittings.sweep.trying import estimated
from influence_cli.sweeps.searchers import Grid, NoOptions, Random

_MOST = 64
"""Trials that are reckoned one by one; what more take is reckoned from these."""


def estimate_document(prepared: Prepared, heard: Listener) -> dict[str, Any]:
    """Return the documented object ``influence.sweep.dry-run/1``."""
    config = prepared.config
    trials, count, known = _trials(prepared)
    rows: list[dict[str, Any]] = []
    notes: dict[str, None] = {}
    unpriced: dict[str, None] = {}
    for parameters in trials:
        need, settled = estimated(prepared.registry, prepared.base, prepared.keys, parameters, heard)
        notes.update(dict.fromkeys(settled))
        unpriced.update(dict.fromkeys(need.unpriced))
        figures = {"conversations": need.conversations, "calls": need.calls, "tokens": need.tokens, "cost": need.cost}
        rows.append({"parameters": parameters, **figures})
    scale = config.seeds * count / len(rows)
    costs = [row["cost"] for row in rows]
    return {
        "schema": "influence.sweep.dry-run/1",
        "config": config.model_dump(mode="json"),
        "space": [
            {"name": name, "setting": prepared.keys[name], "space": written(dimension)}
            for name, dimension in config.search.items()
        ],
        "trials": count,
        "known": known,
        "runs": count * config.seeds,
        "reckoned": rows,
        "conversations": round(scale * sum(row["conversations"] for row in rows)),
        "calls": round(scale * sum(row["calls"] for row in rows)),
        "tokens": round(scale * sum(row["tokens"] for row in rows)),
        "cost": None if None in costs else scale * sum(costs),
        "unpriced": list(unpriced),
        "notes": list(notes),
    }


def _trials(prepared: Prepared) -> tuple[list[Parameters], int, bool]:
    """Return trials to reckon with, how many there will be, and whether they are the very ones."""
    study, config = prepared.study(), prepared.config
    if config.searcher.name == "grid":
        grid = Grid(study, NoOptions())
        count = min(grid.points, config.trials or grid.points)
        proposed = [grid.ask(number) for number in range(min(count, _MOST))]
    else:
        count = config.trials or 1
        drawn = Random(study, NoOptions())
        proposed = [drawn.ask(number) for number in range(min(count, _MOST))]
    return [each for each in proposed if each is not None], count, config.searcher.name in ("grid", "random")
