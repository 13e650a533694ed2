"""The conversation of a sample, had by the simulation's own code with Inspect's model as the agent."""

from __future__ import annotations

from typing import Any

from inspect_ai.model import ModelOutput
from inspect_ai.solver import Generate, Solver, TaskState, solver

from influence_cli.api import (
    Environment,
    Episode,
    JudgePolicy,
    KeptConversation,
    Role,
    SimulationConfig,
    StateReference,
    converse,
)
from influence_inspect.backend import InspectBackend
from influence_inspect.cast import Cast, environment_named
from influence_inspect.messages import OURS, stored_messages
from influence_inspect.naming import qualified
from influence_inspect.samples import sample_metadata, stored_data


class ConversationFailedError(Exception):
    """A conversation that a model's failure ended; Inspect counts the sample as an error."""


@solver(name=qualified("simulated_user"))
def simulated_user(
    environment: str,
    turns: int | None = None,
    seed: int = 0,
    veto: bool = True,
    minimum_mass: float | None = None,
    user_model: str | None = None,
    preference_model: str | None = None,
    transition_model: str | None = None,
    veto_model: str | None = None,
    model_options: dict[str, Any] | None = None,
) -> Solver:
    """Play the user, and have every reply judged, until the conversation ends."""
    config = SimulationConfig(
        turns=turns, seed=seed, veto=veto, speculate=False, judges=JudgePolicy(minimum_mass=minimum_mass)
    )
    named: dict[Role, str | None] = {
        "user": user_model,
        "preference": preference_model,
        "transition": transition_model,
        "veto": veto_model,
    }
    cast = Cast(config, named, model_options)
    place = environment_named(environment)

    async def solve(state: TaskState, generate: Generate) -> TaskState:  # noqa: ARG001 - the conversation asks the model
        models = cast.models()
        kept = await converse(_episode(place, state, seed), models, cast.config)
        _show(state, kept)
        agent = models["agent"].backend
        if isinstance(agent, InspectBackend) and agent.limit is not None:
            raise agent.limit
        if kept.end is None or kept.end.status == "failed":
            detail = f"{kept.end.failure}: {kept.end.detail}" if kept.end else "a budget is used up"
            raise ConversationFailedError(detail)
        state.completed = True
        return state

    return solve


def _episode(environment: Environment, state: TaskState, seed: int) -> Episode:
    """Return the conversation of a sample; Inspect's epochs are the samples from one initial state."""
    about = state.metadata
    reference = StateReference(about["scenario"], about["initial_state"], about["split"])
    return environment.episode(
        reference, sample=state.epoch - 1, population=about["population"], cue=about["cue"], seed=seed
    )


def _show(state: TaskState, kept: KeptConversation) -> None:
    """Put the conversation where Inspect keeps one, whole or as far as it came; its metadata become this epoch's."""
    state.metadata.update(sample_metadata(kept.record))
    state.messages = stored_messages(kept.messages, f"{state.sample_id}-{state.epoch}")
    state.store.set(OURS, stored_data(kept.record, kept.judgements, kept.calls, kept.end))
    said = [message.text for message in kept.messages if message.speaker == "agent" and message.source == "model"]
    if said:
        state.output = ModelOutput.from_content(model=str(state.model), content=said[-1])
