"""What a model was asked, word for word.

Prompts of a conversation's roles are rendered again from the environment, if it is still the one of the run; those of
its scores from rubrics and environment, if their hash is still the one that the score names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from influence_cli.environments.environment import Environment, Episode
from influence_cli.environments.revival import revive
from influence_cli.errors import InfluenceError
from influence_cli.schemas.messages import ChatMessage, Role
from influence_cli.schemas.records import WHOLE, MessageRecord
from influence_cli.schemas.rubrics import Rubric
from influence_cli.scoring.asked_again import AskedAgain, asked_again
from influence_cli.scoring.judging import Way
from influence_cli.store.conversation import StoredConversation
from influence_cli.store.run_directory import RunDirectory

if TYPE_CHECKING:
    from influence_cli.viewer.app import EnvironmentsOf

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
    environments_of: EnvironmentsOf,
) -> Prompt:
    """Return what ``role`` was asked in ``turn``; InfluenceError where that cannot be known any more."""
    name = conversation.record.key.environment
    environment, doubt = _environment(name, directory, environments_of)
    if environment is None or doubt:
        raise InfluenceError(f"{doubt}; its prompts cannot be shown.", hint="Restore its files of then.")
    episode = revive(environment, conversation.record)
    heard, state = _heard(conversation.messages, role, turn)
    if role not in ("agent", "user") and not episode.asks(role, state):
        raise InfluenceError(f"In the state {state}, {_NAMES.get(role, role)} is not asked.")
    messages = episode.prompt(role, state, [message.said() for message in heard])
    return Prompt(
        title=f"What {_NAMES.get(role, role)} was asked in turn {turn}, state {state}",
        blocks=tuple(_block(message) for message in messages),
        note=_note(episode, role, state, environment.digest),
    )


def prompt_of_scores(
    conversation: StoredConversation,
    trajectory: Mapping[str, Any],
    turn: int,
    directory: RunDirectory,
    environments_of: EnvironmentsOf,
    rubrics: Sequence[Rubric],
) -> Prompt:
    """Return what was asked for the scores of ``turn`` and of the whole conversation, each reading once.

    ``rubrics`` are all that are here. Raises InfluenceError where there are no such scores, or nothing is known of any.
    """
    scores = [score for score in conversation.scores if score.turn in (WHOLE, turn)]
    if not scores:
        raise InfluenceError(f"Neither turn {turn} nor the conversation has scores.", hint="influence score RUN")
    environment, doubt = _environment(conversation.record.key.environment, directory, environments_of)
    found = asked_again(
        conversation.episode_id, trajectory, scores, rubrics=rubrics, environment=environment, doubt=doubt
    )
    known = [each for each in found if each.ways]
    missing = _missing([each for each in found if not each.ways])
    if not known:
        raise InfluenceError("; ".join(missing) + ".")
    return Prompt(
        title=f"What the judges of turn {turn} and of the conversation were asked",
        blocks=tuple(_questions(known)),
        note="; ".join(["each question follows the text above it; its hash is the one that its score names", *missing]),
    )


def _environment(name: str, directory: RunDirectory, environments_of: EnvironmentsOf) -> tuple[Environment | None, str]:
    """Return an environment of the run as it is now, and why it may not be the one of then."""
    digest = directory.manifest.environments.get(name)
    environment, trouble = None, ""
    try:
        environment = environments_of(directory.path).get(name)
    except InfluenceError as error:
        trouble = str(error).rstrip(".")
    if digest is None:
        return environment, f"The run does not say which {name} it was made with"
    if trouble:
        return None, trouble
    if environment is None:
        return None, f"The environment {name} is not here any more"
    if environment.digest != digest:
        return environment, f"The environment {name} has changed since the run was made"
    return environment, ""


def _questions(known: Sequence[AskedAgain]) -> Iterator[tuple[str, str]]:
    """Yield what is read, then the questions about it; a question that several judges were asked stands once."""
    readings: dict[int, dict[str, list[tuple[Way, AskedAgain]]]] = {}
    for each in known:
        for way in each.ways:
            readings.setdefault(id(way.item.frame), {}).setdefault(way.question, []).append((way, each))
    for questions in readings.values():
        yield from _shared(next(iter(questions.values()))[0][0])
        for question, same in questions.items():
            yield _asked_of(same), question


def _shared(way: Way) -> Iterator[tuple[str, str]]:
    """Yield the blocks of a prompt as far as its question."""
    *before, last = way.prompt()
    yield from (_block(message) for message in before)
    yield last.role, last.content.removesuffix(way.question)


def _asked_of(same: Sequence[tuple[Way, AskedAgain]]) -> str:
    way = same[0][0]
    where = f"turn {way.item.turn}" if way.item.turn else "conversation"
    how = dict.fromkeys(f"{each.score.judge} ({each.score.method})" for _, each in same)
    return f"{way.item.name}, {where}, put to {', '.join(how)}"


def _missing(found: Sequence[AskedAgain]) -> list[str]:
    """Return why questions are not shown, one entry a reason."""
    reasons: dict[str, dict[str, None]] = {}
    for each in found:
        reasons.setdefault(each.reason, {})[each.score.rubric] = None
    return [f"{', '.join(names)}: {reason}" for reason, names in reasons.items()]


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
