"""What a training run came to, iteration by iteration: measured on held-out states, with intervals.

Invariant: every iteration that was measured is shown, and none is picked; unusable ratings and failed conversations are
counted and enter no mean.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from influence_cli.schemas.configs import SelectionConfig, TrainConfig
from influence_cli.schemas.records import Split
from influence_cli.scoring.statistics import Interval, Sample, difference_interval, mean_interval
from influence_cli.store.reader import RunReader
from influence_cli.training.rewards import candidates
from influence_cli.training.selection import Candidate

_STAGES = "SELECT iteration, name, started, finished, data FROM stage ORDER BY iteration, started"
_AGENTS = "SELECT number, adapter FROM iteration ORDER BY number"
_COUNTS = (
    "SELECT count(*) AS n, sum(t.status = 'complete') AS complete, sum(t.status = 'failed') AS failed"
    " FROM episode e JOIN trajectory t ON t.episode_id = e.id WHERE e.iteration = ? AND e.split = ?"
)


def training_figures(run: RunReader) -> list[dict[str, Any]]:
    """Return a row for each iteration of a training run; empty for a run of another kind."""
    config = run.directory.manifest.config
    if not isinstance(config, TrainConfig):
        return []
    stages: dict[int, dict[str, dict[str, Any]]] = defaultdict(dict)
    for row in run.rows(_STAGES):
        seconds = round(row["finished"] - row["started"], 3) if row["finished"] else None
        stages[row["iteration"]][row["name"]] = {"data": orjson.loads(row["data"]), "seconds": seconds}
    agents = {row["number"]: row["adapter"] for row in run.rows(_AGENTS)}
    first = candidates(run, 0, "heldout", config.selection).rated
    figures = []
    for iteration in sorted(agents):
        found = candidates(run, iteration, "heldout", config.selection).rated
        figures.append(
            {
                "iteration": iteration,
                "agent": agents[iteration],
                "heldout": split_figures(run, iteration, "heldout", config.selection),
                "change": _change(found, first) if iteration else None,
                "train": split_figures(run, iteration, "train", config.selection),
                "stages": {name: _done(stages[iteration], name) for name in ("prove", "select", "train")},
                "seconds": {name: stage["seconds"] for name, stage in stages[iteration].items()},
            }
        )
    return figures


def _done(stages: Mapping[str, dict[str, Any]], name: str) -> dict[str, Any] | None:
    """Return what came of a finished stage; of training, its losses by their ends."""
    stage = stages.get(name)
    if stage is None or stage["seconds"] is None:
        return None
    data: dict[str, Any] = stage["data"]
    if name == "train":
        losses = data.pop("losses", [])
        return {**data, "first_loss": losses[0] if losses else None, "last_loss": losses[-1] if losses else None}
    return data


def split_figures(run: RunReader, iteration: int, split: Split, config: SelectionConfig) -> dict[str, Any] | None:
    """Return counts, reward and veto of an iteration's conversations of one split; None if there are none."""
    counts = dict(run.rows(_COUNTS, (iteration, split))[0])
    if not counts["n"]:
        return None
    found = candidates(run, iteration, split, config)
    vetoes = [each.veto for each in found.rated if each.veto is not None]
    populations: dict[str, list[float]] = defaultdict(list)
    for each in found.rated:
        populations[each.population or "-"].append(each.reward)
    return {
        "conversations": counts["n"],
        "complete": counts["complete"],
        "failed": counts["failed"],
        "unrated": found.unrated,
        "reward": _interval(mean_interval(samples(found.rated)[0])) if found.rated else None,
        "veto": sum(vetoes) / len(vetoes) if vetoes else None,
        "by_population": {name: sum(values) / len(values) for name, values in sorted(populations.items())},
    }


def _change(now: Sequence[Candidate], first: Sequence[Candidate]) -> dict[str, Any] | None:
    """Return the held-out reward now less that before anything was learnt, scenarios resampled together."""
    if not now or not first:
        return None
    return _interval(difference_interval(*samples(now, first)))


def samples(*groups: Sequence[Candidate]) -> list[Sample]:
    """Return the rewards of each group as a sample, scenarios and initial states numbered alike in all."""
    flat = [each for group in groups for each in group]
    whole = Sample.named(
        [each.reward for each in flat],
        [f"{each.environment}/{each.scenario}" for each in flat],
        [each.initial_state for each in flat],
    )
    found, start = [], 0
    for group in groups:
        part = slice(start, start + len(group))
        found.append(Sample(whole.values[part], whole.scenarios[part], whole.states[part]))
        start += len(group)
    return found


def _interval(found: Interval) -> dict[str, Any]:
    ends = (value if math.isfinite(value) else None for value in (found.low, found.high))
    low, high = ends
    return {"mean": found.value, "low": low, "high": high, "n": found.n, "units": found.units, "over": found.over}
