"""Every environment as a task of Inspect: ``inspect eval influence_inspect/therapy --model ...``.

A sample is an initial state with a kind of user; epochs are further conversations from it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Literal

from inspect_ai import Task, task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.scorer import Scorer

from influence_cli.api import Cue, SimulationConfig, count_episodes, episodes, known_environments
from influence_inspect.cast import environment_named, registry
from influence_inspect.messages import stored_messages
from influence_inspect.naming import qualified
from influence_inspect.samples import sample_id, sample_metadata
from influence_inspect.scorers import names_of, preference
from influence_inspect.scorers import rubrics as rubrics_score
from influence_inspect.scorers import veto as veto_score
from influence_inspect.solver import simulated_user


def environment_task(
    environment: str,
    scenario: str | list[str] | None = None,
    initial_state: str | list[str] | None = None,
    population: str | dict[str, float] | None = None,
    cue: Cue | None = None,
    split: Literal["all", "train", "heldout"] = "all",
    turns: int | None = None,
    seed: int = 0,
    veto: bool = True,
    minimum_mass: float | None = None,
    user_model: str | None = None,
    preference_model: str | None = None,
    transition_model: str | None = None,
    veto_model: str | None = None,
    judge_model: str | None = None,
    model_options: dict[str, Any] | None = None,
    rubrics: str | list[str] | None = None,
) -> Task:
    """Return the task of an environment; the settings are those of ``influence simulate``.

    ``*_model`` are models of ours; a role without one is Inspect's model role of that name, else the evaluated model.
    ``rubrics`` are asked afterwards: names, tags, or ``environment`` for the environment's own questions.
    """
    config = SimulationConfig(
        scenarios=names_of(scenario),
        initial_states=names_of(initial_state),
        populations={population: 1.0} if isinstance(population, str) else population or {},
        cue=cue,
        split=split,
        seed=seed,
    )
    judged: dict[str, Any] = {"minimum_mass": minimum_mass, "seed": seed, "model_options": model_options}
    place = environment_named(environment)
    return Task(
        dataset=_dataset(environment, config),
        solver=simulated_user(
            environment,
            turns=turns,
            veto=veto,
            user_model=user_model,
            preference_model=preference_model,
            transition_model=transition_model,
            veto_model=veto_model,
            **judged,
        ),
        scorer=_scorers(environment, names_of(rubrics), veto=veto, judge_model=judge_model, **judged),
        name=place.name,
        version=place.digest[:12],
        metadata={"environment": place.name, "digest": place.digest},
    )


def _dataset(environment: str, config: SimulationConfig) -> MemoryDataset:
    place = environment_named(environment)
    place.refuse_silent(config.cue)
    count_episodes([place], config)
    samples = [
        Sample(
            id=sample_id(episode.record),
            input=stored_messages(episode.opening(), sample_id(episode.record)),
            metadata=sample_metadata(episode.record),
        )
        for episode in episodes([place], config)
    ]
    return MemoryDataset(samples, name=place.name)


def _scorers(environment: str, names: tuple[str, ...], *, veto: bool, **judged: Any) -> list[Scorer]:
    made = [preference(), *([veto_score()] if veto else [])]
    return [*made, rubrics_score(list(names), environment, **judged)] if names else made


def _task_of(environment: str) -> Callable[..., Task]:
    def make(**settings: Any) -> Task:
        return environment_task(environment, **settings)

    signature = inspect.signature(environment_task)
    own = [each for name, each in signature.parameters.items() if name != "environment"]
    make.__signature__ = signature.replace(parameters=own)  # type: ignore[attr-defined]
    make.__annotations__ = {k: v for k, v in environment_task.__annotations__.items() if k != "environment"}
    make.__name__ = environment.replace("-", "_")
    make.__doc__ = f"Conversations of the environment {environment}."
    return make


def register_tasks() -> None:
    """Make a task of every environment that can be found, and one that takes any by name or folder."""
    for name in known_environments(registry()):
        task(name=qualified(name))(_task_of(name))
    task(name=qualified("environment"))(environment_task)
