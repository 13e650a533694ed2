"""What a sweep is, what it asks of a searcher, and what became of each trial."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, JsonValue, PlainSerializer

from influence_cli.schemas.configs import Budget
from influence_cli.schemas.frozen import Frozen
from influence_cli.schemas.spaces import Space

Direction = Literal["maximize", "minimize"]
TrialState = Literal["running", "done", "pruned", "failed"]
Parameters = dict[str, JsonValue]
"""Values by the name of what is searched."""

_DIRECTIONS: Mapping[str, Direction] = {
    "max": "maximize", "maximize": "maximize", "min": "minimize", "minimize": "minimize",
}  # fmt: skip


class Objective(Frozen):
    """A figure of a run that is to become large or small."""

    name: str = Field(description="As in the table of docs/sweeps.md.")
    direction: Direction | None = Field(default=None, description="None: the figure's usual one.")

    @property
    def sign(self) -> float:
        """1 where more is better, else -1."""
        return -1.0 if self.direction == "minimize" else 1.0


def parse_objective(value: Any) -> Any:
    """Return what ``NAME`` or ``NAME:max`` or ``NAME:min`` says; ValueError for another direction."""
    if not isinstance(value, str):
        return value
    name, separator, way = value.partition(":")
    if separator and way not in _DIRECTIONS:
        raise ValueError(f"write NAME, NAME:max or NAME:min, not {value!r}")
    return {"name": name, "direction": _DIRECTIONS.get(way)}


def written_objective(objective: Objective) -> str:
    """Return an objective as it is written."""
    return objective.name if objective.direction is None else f"{objective.name}:{objective.direction[:3]}"


Objectives = tuple[Annotated[Objective, BeforeValidator(parse_objective), PlainSerializer(written_objective)], ...]


class SearcherConfig(Frozen):
    """What proposes the parameters of trials."""

    name: str | None = Field(default=None, description="See `influence plugins list`; None: grid, tpe or random.")
    options: dict[str, JsonValue] = Field(default_factory=dict, description="Its options.")


class LauncherConfig(Frozen):
    """What starts the process of a trial."""

    name: str = Field(default="local", description="See `influence plugins list`.")
    options: dict[str, JsonValue] = Field(default_factory=dict, description="Its options.")


class TrialResources(Frozen):
    """What one run of a trial needs, for launchers that place work."""

    gpus: int = Field(default=0, ge=0, description="Accelerators.")
    cpus: int = Field(default=1, ge=1, description="Processors.")
    memory_gb: float | None = Field(default=None, gt=0.0, description="Memory; None: the launcher's default.")
    minutes: int | None = Field(default=None, ge=1, description="Longest time; None: the launcher's default.")


class SweepConfig(Frozen):
    """Everything that determines a sweep."""

    command: Literal["train", "simulate"] = Field(
        default="train", description="What a trial is: a run of this command."
    )
    base: dict[str, JsonValue] = Field(default_factory=dict, description="Settings that all trials have in common.")
    search: Space = Field(default_factory=dict, description="What is searched: a space by the name of a setting.")
    trials: int | None = Field(default=None, ge=1, description="How many; None: the whole grid.")
    objectives: Objectives = Field(default=(), description="What is to become large or small; the first leads.")
    seeds: int = Field(default=1, ge=1, description="Runs of each trial, which differ by their seed.")
    parallel: int = Field(default=1, ge=1, description="Trials at once.")
    searcher: SearcherConfig = Field(default_factory=SearcherConfig, description="How parameters are proposed.")
    launcher: LauncherConfig = Field(default_factory=LauncherConfig, description="Where trials run.")
    resources: TrialResources = Field(default_factory=TrialResources, description="What one run of a trial needs.")
    budget: Budget = Field(default_factory=Budget, description="Of all trials together.")
    seed: int = Field(default=0, ge=0, lt=2**63, description="From which the searcher's draws derive.")
    max_failed_share: float = Field(default=0.1, ge=0.0, le=1.0, description="Failed trials before exit code 1.")
    stop_after_failed: int = Field(default=5, ge=1, description="Stop once this many ended, and every one failed.")


class SweepManifest(Frozen):
    """``sweep.yaml`` in a sweep's folder: what it is and under which conditions it was made."""

    schema_version: int = Field(default=1, description="Of this file and of sweep.db.")
    sweep_id: str = Field(description="No other sweep has it: the name of the study in a searcher's storage.")
    created: str = Field(description="ISO 8601 time in UTC.")
    config: SweepConfig = Field(description="Resolved: files, flags and defaults together.")
    keys: dict[str, str] = Field(description="The setting behind each name that is searched.")
    environments: dict[str, str] = Field(default_factory=dict, description="Digest of each environment, by name.")
    versions: dict[str, str] = Field(default_factory=dict, description="Of Python, this program, plugins, libraries.")
    argv: tuple[str, ...] = Field(default=(), description="The command line; it never holds a key.")


class Study(Frozen):
    """What a searcher is told: the space, the aims, and where it may keep what it must remember."""

    name: str = Field(description="The sweep's identifier.")
    folder: str = Field(description="The sweep's folder, which exists.")
    seed: int = Field(description="From which every draw derives.")
    space: Space = Field(description="Dimensions by name.")
    objectives: Objectives = Field(description="With their directions; the first leads.")
    trials: int | None = Field(default=None, description="How many are wanted; None: all that there are.")

    @property
    def directions(self) -> tuple[Direction, ...]:
        """Which way each objective is to go."""
        return tuple(each.direction or "maximize" for each in self.objectives)


class Reading(Frozen):
    """What a trial came to by one objective; limits are null where there are too few units to know."""

    objective: str = Field(description="Its name.")
    value: float = Field(description="Over all seeds: their mean.")
    low: float | None = Field(default=None, description="Lower limit of the 95 % interval.")
    high: float | None = Field(default=None, description="Upper limit of it.")
    over: str = Field(description="What the interval is over: seeds, scenarios, initial states, or nothing.")


class TrialRecord(Frozen):
    """One trial: its parameters and what became of them."""

    number: int = Field(description="From 0.")
    parameters: Parameters = Field(description="Values by the name of what is searched.")
    state: TrialState = Field(default="running", description="Running until it ended one way or another.")
    reason: str = Field(default="", description="Why it was pruned or failed, or is given up for now.")
    readings: tuple[Reading, ...] = Field(default=(), description="One for each objective, if it is done.")
    steps: dict[int, float] = Field(default_factory=dict, description="The first objective by iteration, from 1.")
    started: float = Field(default=0.0, description="Seconds since 1970.")
    finished: float | None = Field(default=None, description="Seconds since 1970.")
    tokens: int = Field(default=0, description="Used by its runs.")
    cost: float | None = Field(default=None, description="US dollars of its runs; None: a price is not known.")
