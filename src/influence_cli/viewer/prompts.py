"""What a model was asked, word for word: rendered again from the environment, if it is still the one of the run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson

from influence_cli.environments.environment import Environment, Episode
from influence_cli.environments.revival import revive
from influence_cli.errors import InfluenceError
from influence_cli.schemas.messages import ChatMessage, Role
from influence_cli.schemas.records import MessageRecord
from influence_cli.store.conversation import StoredConversation
from influence_cli.store.run_directory import RunDirectory

_NAMES = {"preference": "rating"}


@dataclass(frozen=True)
class Prompt:
    """Blocks of speaker and text; ``note`` says what one should know of them."""

    title: str
    blocks: tuple[tuple[str, str], ...]
    note: str


def prompt_of(
    conversation: StoredConversation,
    role: Role,
    turn: int,
    directory: RunDirectory,
    environments_of: Callable[[Path], Mapping[str, Environment]],
) -> Prompt:
    """Return what ``role`` was asked in ``turn``; InfluenceError where that cannot be known any more."""
    name = conversation.record.key.environment
    digest = directory.manifest.environments.get(name)
    if digest is None:
        raise InfluenceError(f"The run does not say which {name} it was made with; its prompts cannot be shown.")
    environment = environments_of(directory.path).get(name)
    if environment is None:
        raise InfluenceError(f"The environment {name} is not here any more; its prompts cannot be shown.")
    if environment.digest != digest:
        raise InfluenceError(
            f"The environment {name} has changed since the run was made; its prompts cannot be shown.",
            hint="Restore its files of then.",
        )
    episode = revive(environment, conversation.record)
    heard, state = _heard(conversation.messages, role, turn)
    if role not in ("agent", "user") and not episode.asks(role, state):
        raise InfluenceError(f"In the state {state}, {_NAMES.get(role, role)} is not asked.")
    messages = episode.prompt(role, state, [message.said() for message in heard])
    return Prompt(
        title=f"What {_NAMES.get(role, role)} was asked in turn {turn}, state {state}",
        blocks=tuple(_block(message) for message in messages),
        note=_note(episode, role, state, digest),
    )


def _heard(messages: Sequence[MessageRecord], role: Role, turn: int) -> tuple[Sequence[MessageRecord], str]:
    """Return what a role had heard when it was asked in ``turn``, and in which state."""
    replies = [i for i, m in enumerate(messages) if m.speaker == "agent" and m.turn == turn and m.source != "scenario"]
    if not replies:
        raise InfluenceError(f"Turn {turn} holds no reply yet.")
    last = replies[-1]
    if role == "agent":
        return messages[:last], messages[last].state
    if role == "user":
        said = next((i for i, m in enumerate(messages) if i > last and m.turn == turn and m.speaker == "user"), None)
        if said is None:
            raise InfluenceError(f"The user said nothing after turn {turn}.")
        return messages[:said], messages[said].state
    return messages[: last + 1], messages[last].state


def _block(message: ChatMessage) -> tuple[str, str]:
    calls = [f"[calls {call.name} {orjson.dumps(call.arguments).decode()}]" for call in message.tool_calls]
    return message.role, "\n".join([message.content, *calls]).strip()


def _note(episode: Episode, role: Role, state: str, digest: str) -> str:
    choices = episode.choices(role, state)
    answers = f"; answers: {', '.join(choices)}" if choices else ""
    return f"rendered from the environment with the run's digest {digest[:12]}{answers}"
