"""What a user can set for a run: one model for flags, ``--set`` and YAML files alike."""

from __future__ import annotations

from fractions import Fraction
from typing import Any, Literal

from pydantic import Field, JsonValue, field_validator

from influence_cli.schemas.frozen import Frozen
from influence_cli.schemas.messages import Role
from influence_cli.schemas.records import Cue

_TOLERANCE = 1e-6
_MOST = 2**63
"""Numbers of conversations stay below it: what can be counted here and in SQLite."""
_MOST_SAMPLES = 2**31
"""Conversations from one initial state stay below it, so that those from all do below ``_MOST``."""


class SamplingOverrides(Frozen):
    """Sampling that replaces an environment's own; None keeps it."""

    temperature: float | None = Field(default=None, ge=0.0, le=10.0, description="0 takes the likeliest token.")
    top_p: float | None = Field(default=None, gt=0.0, le=1.0, description="Nucleus probability.")
    max_tokens: int | None = Field(default=None, ge=1, description="Most tokens of one reply.")
    min_tokens: int | None = Field(default=None, ge=0, description="Fewest tokens of one reply, where supported.")


class Price(Frozen):
    """US dollars for a million tokens."""

    prompt: float = Field(ge=0.0, description="For a million prompt tokens.")
    cached: float | None = Field(default=None, ge=0.0, description="For a million cached prompt tokens.")
    completion: float = Field(ge=0.0, description="For a million generated tokens.")


class RoleConfig(Frozen):
    """Which model speaks for a role, and how."""

    model: str | None = Field(default=None, description="``backend:model[@adapter]``; None: the default model.")
    options: dict[str, JsonValue] = Field(default_factory=dict, description="Options of the backend.")
    sampling: SamplingOverrides = Field(default_factory=SamplingOverrides, description="Replaces the environment's.")


class Budget(Frozen):
    """What a run may use before it stops, resumably."""

    cost: float | None = Field(default=None, gt=0.0, description="US dollars.")
    tokens: int | None = Field(default=None, gt=0, description="Tokens of prompts and replies, all roles.")


class JudgePolicy(Frozen):
    """What makes a distribution usable, and what happens when it is not."""

    minimum_mass: float | None = Field(
        default=None,
        ge=0.0,
        le=1.0,
        description="Least probability on the choices; None: 0.5, or 0.001 for the embedded model.",
    )
    attempts: int = Field(default=2, ge=1, description="Calls for one judgement before it is recorded as unusable.")
    draws: int = Field(default=20, ge=1, description="Samples where a backend gives no probabilities.")


class JudgeQuestion(Frozen):
    """A question that replaces an environment's own; states that ask otherwise keep theirs."""

    question: str = Field(min_length=1, description="A template over the environment's variables.")
    choices: tuple[str, ...] = Field(min_length=2, description="What may be answered.")


class SimulationConfig(Frozen):
    """Everything that determines a simulation."""

    environments: tuple[str, ...] = Field(default=(), description="Names or folders of environments.")
    scenarios: tuple[str, ...] = Field(default=(), description="Only these scenarios; empty: all.")
    initial_states: tuple[str, ...] = Field(default=(), description="Only these initial states; empty: all.")
    n: int | None = Field(
        default=None, ge=1, lt=_MOST, description="Conversations in all; None: every initial state `samples` times."
    )
    samples: int = Field(default=1, ge=1, lt=_MOST_SAMPLES, description="Conversations from each initial state.")
    turns: int | None = Field(default=None, ge=1, description="Most agent replies; None: the environment's own.")
    split: Literal["all", "train", "heldout"] = Field(default="all", description="Which initial states to use.")
    populations: dict[str, float] = Field(default_factory=dict, description="Fractions; empty: the environment's own.")
    population_by: Literal["sample", "initial-state"] = Field(
        default="sample",
        description="Whether conversations from one initial state have users of all kinds, or all of one kind.",
    )
    cue: Cue | None = Field(
        default=None, description="How the agent could tell a population; None: the environment's own."
    )
    seed: int = Field(default=0, ge=0, lt=2**63, description="From which every random draw derives.")
    concurrency: int = Field(default=64, ge=1, description="Conversations in progress at once.")
    roles: dict[Role, RoleConfig] = Field(default_factory=dict, description="Models and sampling by role.")
    default: RoleConfig = Field(default_factory=RoleConfig, description="For roles that name nothing of their own.")
    veto: bool = Field(default=True, description="Whether the veto model is asked.")
    speculate: bool = Field(
        default=True,
        description="Ask for the next user message before the transition is known; never of a model on a processor.",
    )
    questions: dict[Literal["preference", "veto"], JudgeQuestion] = Field(
        default_factory=dict, description="Questions by judging role that replace the environments' own."
    )
    judges: JudgePolicy = Field(default_factory=JudgePolicy, description="When a judgement counts.")
    budget: Budget = Field(default_factory=Budget, description="When to stop.")
    prices: dict[str, Price] = Field(default_factory=dict, description="By model name, without adapter.")
    max_failed_share: float = Field(
        default=0.1, ge=0.0, le=1.0, description="Failed conversations, in training scores too, before exit code 1."
    )
    stop_after_alike: int = Field(default=20, ge=1, description="Stop once this many ended, all failed in one way.")
    cache: str | None = Field(default=None, description="Folder of the answer cache; None: no cache.")

    @field_validator("populations")
    @classmethod
    def _fractions(cls, value: dict[str, float]) -> dict[str, float]:
        if value and (min(value.values()) < 0.0 or abs(sum(value.values()) - 1.0) > _TOLERANCE):
            shown = " + ".join(f"{name}={fraction:g}" for name, fraction in value.items())
            raise ValueError(
                f"fractions must not be negative and must sum to one, not {shown} = {sum(value.values()):g}"
            )
        return value


class SelectionConfig(Frozen):
    """Which trajectories are learnt from."""

    level: Literal["initial-state", "scenario", "environment"] = Field(
        default="initial-state",
        description="Among which conversations the best are looked for; initial-state: with one kind of user.",
    )
    fraction: float = Field(
        default=1 / 16, gt=0.0, le=1.0, description="Share of a group that is best, and as many worst; 1/16 is allowed."
    )
    count: int | None = Field(default=None, ge=1, description="Best of a group by number, in place of the share.")
    reward: Literal["mean", "final", "whole", "score"] = Field(
        default="mean",
        description="Mean rating, rating of the last reply, rating of the whole conversation, or the score `rubric`.",
    )
    rubric: str | None = Field(default=None, description="With reward `score`: a rubric, SCORER, or SCORER/SCORE.")
    length_penalty: float = Field(
        default=0.0, ge=0.0, description="Taken from the reward for each character of the last reply."
    )
    veto_level: float | None = Field(
        default=0.5, description="Only conversations whose mean veto is below it may be best; None: all may."
    )
    vetoed_as_negatives: bool = Field(default=False, description="Whether vetoed conversations may be among the worst.")
    minimum_spread: float = Field(
        default=0.0, ge=0.0, description="Least difference of reward between any of the best and any of the worst."
    )
    how: Literal["reward", "random"] = Field(
        default="reward", description="By reward, or at random: a control that learns from as many rows."
    )

    @field_validator("fraction", mode="before")
    @classmethod
    def _fraction(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return float(Fraction(value.replace(" ", "")))
        except (ValueError, ZeroDivisionError):
            raise ValueError(f"write a number or a fraction such as 1/16, not {value!r}") from None


class AlgorithmConfig(Frozen):
    """What turns rows into an adapter."""

    name: str = Field(default="expert-iteration", description="Of a training algorithm; see `influence plugins list`.")
    options: dict[str, JsonValue] = Field(default_factory=dict, description="Its options.")


class EvaluationConfig(Frozen):
    """Conversations from held-out initial states, never learnt from."""

    n: int | None = Field(
        default=None, ge=1, lt=_MOST, description="Conversations; None: each held-out state `samples` times."
    )
    samples: int = Field(
        default=1, ge=1, lt=_MOST_SAMPLES, description="Conversations from each held-out initial state."
    )
    every: int = Field(default=1, ge=1, description="Iterations from one to the next; first and last always are.")


class SourceConfig(Frozen):
    """Conversations that are there already."""

    run: str | None = Field(default=None, description="Run whose conversations the first iteration learns from.")
    iteration: int | None = Field(default=None, ge=0, description="Only those of this iteration; None: all.")


class TrainConfig(SimulationConfig):
    """Everything that determines a training run; the keys of a simulation say how each iteration's are had."""

    population_by: Literal["sample", "initial-state"] = Field(
        default="initial-state",
        description="Whether conversations from one initial state have users of all kinds, or all of one kind.",
    )
    samples: int = Field(default=16, ge=1, lt=_MOST_SAMPLES, description="Conversations from each initial state.")
    iterations: int = Field(default=5, ge=1, description="How often conversations are had and learnt from.")
    source: SourceConfig = Field(
        default_factory=SourceConfig, description="What the first iteration learns from, in place of its own."
    )
    algorithm: AlgorithmConfig = Field(default_factory=AlgorithmConfig, description="How is learnt.")
    selection: SelectionConfig = Field(default_factory=SelectionConfig, description="What is learnt from.")
    layout: Literal["turn", "conversation"] = Field(
        default="turn", description="One row for each turn, or for each stretch of turns that one prompt leads through."
    )
    evaluation: EvaluationConfig = Field(default_factory=EvaluationConfig, description="How progress is measured.")
    trackers: dict[str, dict[str, JsonValue]] = Field(
        default_factory=dict, description="Options by name of each tracker that follows the run."
    )

    @field_validator("split")
    @classmethod
    def _both(cls, value: str) -> str:
        if value != "all":
            raise ValueError("training learns from the split train and is measured on heldout; leave split out")
        return value


class RunManifest(Frozen):
    """``run.yaml``: what a run is and under which conditions it was made."""

    schema_version: int = Field(default=1, description="Of this file and the database.")
    run_id: str = Field(description="Name of the run's directory when it was made.")
    command: Literal["simulate", "train", "score", "import"] = Field(description="What made it.")
    created: str = Field(description="ISO 8601 time in UTC.")
    config: SimulationConfig | TrainConfig = Field(description="Resolved: files, flags and defaults together.")
    models: dict[str, str] = Field(default_factory=dict, description="By role: the model that really speaks.")
    environments: dict[str, str] = Field(default_factory=dict, description="Digest of each environment, by name.")
    versions: dict[str, str] = Field(default_factory=dict, description="Of Python, this program, plugins, libraries.")
    git: dict[str, str | bool] = Field(default_factory=dict, description="Commit and whether the tree was changed.")
    argv: tuple[str, ...] = Field(default=(), description="The command line; it never holds a key.")
