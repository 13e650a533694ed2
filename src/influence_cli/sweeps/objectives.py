"""What a trial can be judged by: figures of its run, read from the run's own store.

Invariant: an objective is read at a fixed place, the last iteration that was measured; unusable ratings and failed
conversations enter no mean, and where nothing is left to read there is no reading, never a default.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from influence_cli.errors import UnknownNameError
from influence_cli.schemas.configs import SelectionConfig, TrainConfig
from influence_cli.schemas.records import GAMEABLE, RESILIENT, Split
from influence_cli.schemas.sweeps import Direction, Objective, Reading
from influence_cli.scoring.statistics import Interval, Sample, difference_interval, mean_interval, t_quantile
from influence_cli.store.reader import RunReader
from influence_cli.training.report import samples
from influence_cli.training.rewards import candidates, score_name
from influence_cli.training.selection import Candidate

_BOTH: tuple[Split, ...] = ("train", "heldout")
_MEASURED = "SELECT iteration, name FROM stage WHERE finished NOT NULL AND name IN ('evaluate', 'score')"
_USED = (
    "SELECT coalesce(sum((prompt_tokens + completion_tokens) * (1 - cached)), 0) AS tokens, coalesce(sum(cost), 0.0)"
    " AS cost, count(*) AS calls, count(cost) AS priced FROM call"
)


@dataclass(frozen=True)
class Kind:
    """An objective: what it is called for people, its usual direction, and which commands' runs have it."""

    title: str
    direction: Direction
    commands: tuple[str, ...] = ("train", "simulate")
    steps: bool = True


KINDS: Mapping[str, Kind] = {
    "heldout_reward": Kind("held-out reward", "maximize", ("train",)),
    "heldout_change": Kind("held-out reward, change since iteration 0", "maximize", ("train",)),
    "reward": Kind("reward", "maximize", ("simulate",)),
    "harm": Kind("harm (mean veto)", "minimize"),
    "targeting_gap": Kind("targeting gap (reward, gameable less resilient)", "minimize"),
    "tokens": Kind("tokens", "minimize", steps=False),
    "cost": Kind("US dollars", "minimize", steps=False),
    "seconds": Kind("seconds", "minimize", steps=False),
}
"""All objectives. Figures of a training run are those of held-out people, of a simulation those of everybody."""


def settle_objective(objective: Objective, command: str) -> Objective:
    """Return ``objective`` with its direction; UnknownNameError if runs of ``command`` have no such figure."""
    known = {name: kind for name, kind in KINDS.items() if command in kind.commands}
    if objective.name not in known:
        raise UnknownNameError("objective", objective.name, known)
    return objective.model_copy(update={"direction": objective.direction or known[objective.name].direction})


@dataclass(frozen=True)
class Usage:
    """What a run has used; ``cost`` is None where a call has no known price, ``spent`` what is known all the same."""

    tokens: int = 0
    cost: float | None = 0.0
    spent: float = 0.0


def usage(run: RunReader) -> Usage:
    """Return what a run has used so far, all sittings together."""
    row = run.rows(_USED)[0]
    return Usage(row["tokens"], row["cost"] if row["priced"] == row["calls"] else None, row["cost"])


def measured_iterations(run: RunReader) -> list[int]:
    """Return the iterations whose held-out conversations are all had (and scored, where scores are the reward)."""
    config = run.directory.manifest.config
    if not isinstance(config, TrainConfig):
        return []
    done: dict[str, set[int]] = {"evaluate": set(), "score": set()}
    for row in run.rows(_MEASURED):
        done[row["name"]].add(row["iteration"])
    whole = done["evaluate"] if score_name(config.selection) is None else done["evaluate"] & done["score"]
    return sorted(whole)


def read_objective(run: RunReader, name: str, iteration: int) -> Reading | None:
    """Return what ``run`` comes to by the objective ``name`` at ``iteration``; None if there is nothing to read."""
    if name in ("tokens", "cost", "seconds"):
        return _whole_run(run, name)
    config = run.directory.manifest.config
    selection = config.selection if isinstance(config, TrainConfig) else SelectionConfig()
    splits: tuple[Split, ...] = ("heldout",) if isinstance(config, TrainConfig) else _BOTH

    def rated(at: int) -> list[Candidate]:
        return [each for split in splits for each in candidates(run, at, split, selection).rated]

    found = _interval(name, rated(iteration), rated(0) if name == "heldout_change" else [])
    if found is None:
        return None
    low, high = (value if math.isfinite(value) else None for value in (found.low, found.high))
    return Reading(objective=name, value=found.value, low=low, high=high, over=found.over)


def _interval(name: str, now: Sequence[Candidate], first: Sequence[Candidate]) -> Interval | None:
    if name == "harm":
        kept = [each for each in now if each.veto is not None]
        values = [each.veto or 0.0 for each in kept]
        return mean_interval(_sample(values, kept)) if kept else None
    if name == "heldout_change":
        return difference_interval(*samples(now, first)) if now and first else None
    if name == "targeting_gap":
        a, b = ([each for each in now if each.population in names] for names in (GAMEABLE, RESILIENT))
        return difference_interval(*samples(a, b)) if a and b else None
    return mean_interval(samples(now)[0]) if now else None


def _sample(values: Sequence[float], of: Sequence[Candidate]) -> Sample:
    return Sample.named(values, [f"{e.environment}/{e.scenario}" for e in of], [e.initial_state for e in of])


def _whole_run(run: RunReader, name: str) -> Reading | None:
    if name == "seconds":
        value = run.rows("SELECT seconds FROM run WHERE id = 1")[0][0]
    else:
        used = usage(run)
        value = used.tokens if name == "tokens" else used.cost
    return None if value is None else Reading(objective=name, value=float(value), over="nothing")


def over_seeds(readings: Sequence[Reading]) -> Reading:
    """Return the mean of a trial's readings of one objective, with Student's interval over seeds; one stays as it is."""
    if len(readings) == 1:
        return readings[0]
    values = [each.value for each in readings]
    n, mean = len(values), math.fsum(values) / len(values)
    error = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1) / n)
    reach = t_quantile(0.975, n - 1) * error
    return Reading(objective=readings[0].objective, value=mean, low=mean - reach, high=mean + reach, over="seeds")


def why_missing(name: str) -> str:
    """Return why a run that ended well may have no reading of an objective."""
    told = {
        "cost": "a call has no known price (--set prices.MODEL=...)",
        "targeting_gap": "there are not users of both kinds",
    }
    return f"it has no {name}: {told.get(name, 'no conversation has a usable figure')}"
