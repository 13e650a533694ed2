"""What each role of an environment is really asked, without asking anybody."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from influence_cli.environments.environment import Environment, Episode, StateReference
from influence_cli.errors import InfluenceError, UnknownNameError
from influence_cli.schemas.messages import ChatMessage, Message, Role
from influence_cli.schemas.records import Cue

PREVIEWED: tuple[Role, ...] = ("agent", "user", "preference", "transition", "veto", "probe")
_REPLY = Message(speaker="agent", text="(the agent's reply)")


@dataclass(frozen=True)
class Preview:
    """One prompt: for whom, in which state, and what may be answered (nothing: text)."""

    role: Role
    state: str
    messages: tuple[ChatMessage, ...]
    choices: tuple[str, ...] = ()
    note: str = ""


def pick_episode(
    environment: Environment,
    *,
    scenario: str | None,
    initial_state: str | None,
    population: str | None,
    cue: Cue | None,
    seed: int = 0,
    sample: int = 0,
) -> Episode:
    """Return one conversation of ``environment``, the first that fits; UnknownNameError or InfluenceError if none does."""
    references = environment.initial_states([scenario] if scenario else [])
    if initial_state is not None:
        fitting = [each for each in references if each.initial_state == initial_state]
        if not fitting:
            raise UnknownNameError(
                f"initial state of {environment.name}", initial_state, sorted({r.initial_state for r in references})
            )
        references = fitting
    if not references:
        raise InfluenceError(f"{environment.name} has no initial state.")
    populations = environment.spec.populations
    if population is not None and population not in populations:
        raise UnknownNameError(f"population of {environment.name}", population, populations)
    environment.refuse_silent(cue)
    chosen = population if population is not None else next(iter(populations), None)
    reference: StateReference = references[0]
    return environment.episode(reference, sample=sample, population=chosen, cue=cue, seed=seed)


def previews(
    environment: Environment, episode: Episode, roles: Sequence[Role], states: Sequence[str]
) -> Iterator[Preview]:
    """Yield the prompt of each of ``roles`` in each of ``states`` (none given: the start).

    The agent is shown as it is asked first; the others as they are asked after a reply that stands for any.
    """
    for name in states:
        if name not in environment.spec.states:
            raise UnknownNameError(f"state of {environment.name}", name, environment.spec.states)
    for state in states or (environment.spec.start,):
        opening: tuple[Message, ...] = tuple(message.said() for message in episode.opening())
        if state != environment.spec.start:
            opening = (*opening, _REPLY, *(message.said() for message in episode.entry(state, turn=1)))
        heard = (*opening, _REPLY)
        for role in roles:
            if role == "agent":
                yield Preview(role, state, episode.prompt("agent", state, opening))
            elif role == "user":
                yield Preview(role, state, episode.prompt("user", state, heard))
            elif role == "probe":
                for probe in environment.probes(episode.record.key.scenario):
                    prompt = episode.probe_prompt(probe, state, heard)
                    yield Preview(role, state, prompt, probe.choices, probe.id)
            elif episode.asks(role, state):
                yield Preview(role, state, episode.prompt(role, state, heard), episode.choices(role, state))
