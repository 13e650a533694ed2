"""An episode as it was, from what the store remembers of it."""

from __future__ import annotations

from influence_cli.environments.environment import Environment, Episode
from influence_cli.errors import UnknownNameError
from influence_cli.schemas.records import EpisodeRecord


def revive(environment: Environment, record: EpisodeRecord) -> Episode:
    """Return the episode that ``record`` tells of; its prompts are the same if the environment is.

    Raises UnknownNameError if the environment has no such scenario or initial state.
    """
    key = record.key
    scenario = environment.scenarios.get(key.scenario)
    if scenario is None:
        raise UnknownNameError(f"scenario of {environment.name}", key.scenario, environment.scenarios)
    states = {state.id: state for state in scenario.initial_states}
    if key.initial_state not in states:
        raise UnknownNameError(f"initial state of {key.scenario}", key.initial_state, states)
    return environment.episode_class(environment.spec, scenario, states[key.initial_state], record)
