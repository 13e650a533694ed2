"""Our judges as Inspect's scorers: what was judged within the conversation, and rubrics asked of it afterwards.

A rubric can be asked of any conversation that Inspect holds, ours or not.
"""

from __future__ import annotations

from typing import Any

from inspect_ai.scorer import Metric, Score, Scorer, Target, grouped, mean, scorer, stderr
from inspect_ai.solver import TaskState

from influence_cli.api import (
    Asking,
    JudgementRecord,
    JudgePolicy,
    Plan,
    SimulationConfig,
    pick_rubrics,
    score_conversation,
)
from influence_inspect.cast import Cast, environment_named
from influence_inspect.messages import OURS
from influence_inspect.naming import qualified
from influence_inspect.samples import PREFERENCE, VETO, role_score, rubric_scores
from influence_inspect.trajectories import trajectory_of

_NOT_ASKED = "The environment asks no such question."
METRICS = "environment"
"""What stands for an environment's own questions where rubrics are named."""


def _metrics() -> list[Metric]:
    return [mean(), stderr(), grouped(mean(), "population", all=False, name_template="mean_{group_name}")]


def _judged(role: str, state: TaskState) -> Score:
    kept = state.store.get(OURS)
    judgements = [JudgementRecord.model_validate(each) for each in kept["judgements"]] if kept else []
    return role_score(role, judgements) or Score.unscored(reason="scoring_failed", explanation=_NOT_ASKED)


@scorer(metrics=_metrics(), name=qualified("preference"))
def preference() -> Scorer:
    """Mean rating that the simulated user's preference model gives the replies."""

    async def score(state: TaskState, target: Target) -> Score:  # noqa: ARG001
        return _judged(PREFERENCE, state)

    return score


@scorer(metrics=_metrics(), name=qualified("veto"))
def veto() -> Scorer:
    """Mean answer of the model that looks for harm."""

    async def score(state: TaskState, target: Target) -> Score:  # noqa: ARG001
        return _judged(VETO, state)

    return score


@scorer(metrics={"*": _metrics()}, name=qualified("rubrics"))
def rubrics(
    names: str | list[str],
    environment: str | None = None,
    judge_model: str | None = None,
    minimum_mass: float | None = None,
    seed: int = 0,
    model_options: dict[str, Any] | None = None,
) -> Scorer:
    """Mean answers to rubrics over what they judge, one value each; asked of a model of ours or the model role ``judge``.

    ``names`` are rubrics or tags; ``environment`` among them stands for the questions of the environment named.
    """
    listed = names_of(names)
    shipped = [name for name in listed if name != METRICS]
    place = environment_named(environment) if environment and METRICS in listed else None
    asked = pick_rubrics(shipped) if shipped else []
    config = SimulationConfig(seed=seed, judges=JudgePolicy(minimum_mass=minimum_mass))
    cast = Cast(config, {"judge": judge_model}, model_options)

    async def score(state: TaskState, target: Target) -> Score:  # noqa: ARG001
        plan = Plan(
            rubrics=asked,
            metrics=place is not None,
            judges=[cast.model("judge")],
            environments={place.name: place} if place else {},
        )
        kept = await score_conversation(trajectory_of(state), plan, Asking(seed=seed))
        made = rubric_scores(kept.scores)
        said = [f"{name}: {each.explanation}" for name, each in made.items() if each.explanation]
        return Score(
            value={name: each.as_float() for name, each in made.items()},
            explanation="\n".join(said) or None,
            metadata={OURS: [each.model_dump(mode="json") for each in kept.scores]},
        )

    return score


def names_of(given: str | list[str] | None) -> tuple[str, ...]:
    """Return names given as a list or, on a command line, with commas between them."""
    listed = given.split(",") if isinstance(given, str) else given or []
    return tuple(name.strip() for name in listed if name.strip())
