"""What a run will take, before it is begun."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

from influence_cli.environments.environment import Environment, Episode
from influence_cli.environments.sampling import count_episodes, episodes
from influence_cli.schemas.configs import SimulationConfig
from influence_cli.schemas.messages import Message, Role
from influence_cli.schemas.records import MessageRecord
from influence_cli.schemas.requests import Sampling, Usage
from influence_cli.simulation.models import RoleModel, backends_of, unpriced
from influence_cli.simulation.single import trajectory_document

CHARACTERS_PER_TOKEN = 4.0
"""Of English text; a rule of thumb that holds within a third for the usual tokenizers."""
_LOOKED_AT = 64
_SAMPLED = 8
_FILLED = 0.75
_LEAST = 4


@dataclass
class RoleEstimate:
    """Calls and tokens of one role at most: every conversation takes all its turns, every reply its whole length."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float | None = None


@dataclass(frozen=True)
class Estimate:
    """What a run takes at most."""

    conversations: int
    roles: dict[Role, RoleEstimate]
    unpriced: tuple[str, ...] = ()
    """Models that may cost money and have no price."""

    @property
    def calls(self) -> int:
        """Calls of all roles."""
        return sum(role.calls for role in self.roles.values())

    @property
    def tokens(self) -> int:
        """Tokens of all roles."""
        return sum(role.prompt_tokens + role.completion_tokens for role in self.roles.values())

    @property
    def cost(self) -> float | None:
        """US dollars; None if a role has no price."""
        costs = [role.cost for role in self.roles.values()]
        return None if any(cost is None for cost in costs) else sum(cost or 0.0 for cost in costs)


def estimate(
    environments: Sequence[Environment], config: SimulationConfig, models: Mapping[Role, RoleModel]
) -> Estimate:
    """Return what the run takes at most: the prompts of its first conversations, with replies of full length."""
    total = count_episodes(environments, config)
    looked_at = first_episodes(environments, config)
    roles: dict[Role, RoleEstimate] = {}
    for episode in looked_at:
        for role, prompt, completion in _calls(episode, config, models):
            entry = roles.setdefault(role, RoleEstimate())
            entry.calls += 1
            entry.prompt_tokens += prompt
            entry.completion_tokens += completion
    factor = total / len(looked_at)
    for role, entry in roles.items():
        entry.calls = round(entry.calls * factor)
        entry.prompt_tokens = round(entry.prompt_tokens * factor)
        entry.completion_tokens = round(entry.completion_tokens * factor)
        usage = Usage(prompt_tokens=entry.prompt_tokens, completion_tokens=entry.completion_tokens)
        entry.cost = models[role].cost(usage)
    return Estimate(total, roles, unpriced(models.values()))


def first_episodes(environments: Sequence[Environment], config: SimulationConfig) -> list[Episode]:
    """Return the conversations from which the others are reckoned: the first few."""
    return list(islice(episodes(environments, config), min(_LOOKED_AT, count_episodes(environments, config))))


def longest_trajectory(episode: Episode, config: SimulationConfig, models: Mapping[Role, RoleModel]) -> dict[str, Any]:
    """Return a conversation that takes all its turns, every reply of its whole length, as ``influence.trajectory/1``."""
    limit = config.turns or episode.turns
    speakers: tuple[Literal["agent", "user"], ...] = ("agent", "user")
    tokens = {speaker: _length(models[speaker].sampling(episode.sampling(speaker)), 1.0) for speaker in speakers}
    said = [
        MessageRecord(
            turn=turn, speaker=speaker, text="x" * int(tokens[speaker] * CHARACTERS_PER_TOKEN), state=episode.start
        )
        for turn in range(1, limit + 1)
        for speaker in speakers
    ]
    return {**trajectory_document(episode.record, [*episode.opening(), *said[:-1]], (), None), "turns": limit}


def _calls(
    episode: Episode, config: SimulationConfig, models: Mapping[Role, RoleModel], filled: float = 1.0
) -> Iterator[tuple[Role, int, int]]:
    """Yield role, prompt tokens and completion tokens of each call of a conversation that takes all its turns.

    Replies take the share ``filled`` of their greatest length, or their least length where that is more.
    """
    state = episode.start
    limit = config.turns or episode.turns
    messages = [Message(speaker=m.speaker, text=m.text) for m in episode.opening()]
    agent, user = (_length(models[role].sampling(episode.sampling(role)), filled) for role in ("agent", "user"))
    judges: list[Role] = [
        role
        for role in ("preference", "transition", "veto")
        if episode.asks(role, state) and (role != "veto" or config.veto)
    ]
    for turn in range(1, limit + 1):
        yield "agent", _tokens(episode, "agent", state, messages), agent
        messages.append(Message(speaker="agent", text="x" * int(agent * CHARACTERS_PER_TOKEN)))
        for judge in judges:
            yield judge, _tokens(episode, judge, state, messages), 1
        if turn < limit:
            yield "user", _tokens(episode, "user", state, messages), user
            messages.append(Message(speaker="user", text="x" * int(user * CHARACTERS_PER_TOKEN)))


def conversations_in_cache(
    environments: Sequence[Environment], config: SimulationConfig, models: Mapping[Role, RoleModel]
) -> int | None:
    """Return how many conversations can be in progress before their prompts push each other out of a prefix cache.

    A conversation lies in a cache up to three times: as the agent reads it, as the user does, and as the judges do. It is
    reckoned with at its longest, replies at three quarters of their greatest length. Going over costs more than staying
    under: a cache that is used in turns keeps nothing once it is too small.
    None where no backend states the size of its cache.
    """
    looked_at = list(islice(episodes(environments, config), min(_SAMPLED, count_episodes(environments, config))))
    limits = []
    for backend in backends_of(models.values()):
        room = backend.capabilities.cache_tokens
        if room is not None:
            mine = {role for role, model in models.items() if model.backend is backend}
            longest = [_longest(episode, config, models, mine) for episode in looked_at]
            limits.append(max(_LEAST, int(room / (sum(longest) / len(longest)))))
    return min(limits, default=None)


def _longest(episode: Episode, config: SimulationConfig, models: Mapping[Role, RoleModel], roles: Set[Role]) -> float:
    """Return the tokens of the longest prompts and replies of a conversation, those of judges counted once."""
    longest: dict[str, int] = {"agent": 1}
    for role, prompt, completion in _calls(episode, config, models, _FILLED):
        if role in roles:
            reader = role if role in ("agent", "user") else "judges"
            longest[reader] = max(longest.get(reader, 0), prompt + completion)
    return float(sum(longest.values()))


def _length(sampling: Sampling, filled: float) -> int:
    return max(sampling.min_tokens, round(filled * sampling.max_tokens))


def _tokens(episode: Episode, role: Role, state: str, messages: Sequence[Message]) -> int:
    characters = sum(len(message.content) for message in episode.prompt(role, state, messages))
    return round(characters / CHARACTERS_PER_TOKEN)
