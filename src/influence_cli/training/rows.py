"""From trajectories to training rows: what the agent saw, and which of it the agent itself said.

Invariant: the messages of a row are, up to and including its last reply, exactly what ``Episode.prompt`` gave the
agent; only replies that the agent generated in the rollout are learnt. The file is a pure function of the trajectories
and the settings.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import orjson

from influence_cli.environments.environment import Environment, Episode, StateReference
from influence_cli.environments.tools import MAX_STEPS
from influence_cli.errors import InfluenceError
from influence_cli.schemas.messages import ChatMessage, Message, Role, ToolCall
from influence_cli.schemas.requests import ToolSchema
from influence_cli.schemas.training import TrainingPair, TrainingRow
from influence_cli.store.connection import file_error
from influence_cli.whole_files import writing_whole

Layout = Literal["turn", "conversation"]


class Asked(Protocol):
    """What says how the agent was asked: an :class:`Episode`, or what stands in for one."""

    @property
    def tools(self) -> tuple[ToolSchema, ...]:
        """What the agent could call."""
        ...

    def prompt(self, role: Role, state: str, messages: Sequence[Message]) -> tuple[ChatMessage, ...]:
        """Return what ``role`` is asked in ``state`` once ``messages`` have been said."""
        ...


@dataclass(frozen=True)
class Rated:
    """A trajectory (the object ``influence.trajectory/1``) to be learnt from, its reward and what is thought of it."""

    episode_id: int
    trajectory: Mapping[str, Any]
    reward: float
    desirable: bool | None


@dataclass(frozen=True)
class _Step:
    """One generated message: the prompt that asked for it, what could be called, and whether its end was cut."""

    turn: int
    prompt: tuple[ChatMessage, ...]
    reply: ChatMessage
    tools: tuple[ToolSchema, ...]
    cut: bool

    @property
    def messages(self) -> tuple[ChatMessage, ...]:
        """Prompt and reply."""
        return (*self.prompt, self.reply)


def rows_of(rated: Rated, asked: Asked, *, layout: Layout, reward_of_turns: bool = True) -> list[TrainingRow]:
    """Return the rows of a trajectory in which the agent was ``asked`` so.

    ``reward_of_turns``: whether the reward is the mean of the ratings of turns, so that each has one of its own.
    """
    trajectory = rated.trajectory
    ratings = {
        judged["turn"]: judged["preference"]["expected"]
        for judged in trajectory["judgements"]
        if reward_of_turns and "preference" in judged and judged["preference"]["usable"]
    }
    rows = []
    for stretch in _stretches(list(_steps(trajectory["messages"], asked)), layout):
        last = stretch[-1]
        learnt = tuple(len(step.prompt) for step in stretch)
        rows.append(
            TrainingRow(
                episode_id=rated.episode_id,
                environment=trajectory["environment"],
                scenario=trajectory["scenario"],
                initial_state=trajectory["initial_state"],
                sample=trajectory["sample"],
                population=trajectory["population"],
                turn=last.turn,
                messages=last.messages,
                learnt=learnt,
                cut=tuple(len(step.prompt) for step in stretch if step.cut),
                tools=last.tools,
                reward=rated.reward,
                turn_reward=ratings.get(last.turn),
                desirable=rated.desirable,
            )
        )
    return rows


def episode_of(trajectory: Mapping[str, Any], environment: Environment, seed: int) -> Episode:
    """Return the episode that a stored trajectory is of; InfluenceError if the environment no longer makes it."""
    reference = StateReference(trajectory["scenario"], trajectory["initial_state"], trajectory["split"])
    episode = environment.episode(
        reference,
        sample=trajectory["sample"],
        population=trajectory["population"],
        cue=trajectory["cue"],
        seed=seed,
        iteration=trajectory["iteration"],
    )
    if episode.record.seed != trajectory["seed"]:
        raise InfluenceError(
            f"{trajectory['scenario']}/{trajectory['initial_state']} was had with another seed.",
            hint="Go on with the run's own settings, or start a new run.",
        )
    return episode


def _steps(stored: Sequence[Mapping[str, Any]], asked: Asked) -> Iterator[_Step]:
    """Yield every message that the agent generated, with its prompt."""
    heard: list[Message] = []
    step, turn = 0, 0
    for entry in stored:
        message = Message(
            speaker=entry["speaker"],
            text=entry["text"],
            tool_calls=tuple(ToolCall(**call) for call in entry["tool_calls"]),
            tool_call_id=entry["tool_call_id"],
        )
        if entry["speaker"] == "agent" and entry["source"] == "model":
            step = step + 1 if entry["turn"] == turn else 0
            turn = entry["turn"]
            tools = asked.tools if step < MAX_STEPS else ()
            prompt = asked.prompt("agent", entry["state"], heard)
            reply = ChatMessage(role="assistant", content=message.text, tool_calls=message.tool_calls)
            yield _Step(turn, prompt, reply, tools, cut=entry["finish_reason"] == "length")
        heard.append(message)


def _stretches(steps: Sequence[_Step], layout: Layout) -> Iterator[list[_Step]]:
    """Yield steps in stretches whose prompts lead through each other: of a turn, or as far as they do."""
    stretch: list[_Step] = []
    for step in steps:
        if stretch and not _leads_to(stretch[-1], step, layout):
            yield stretch
            stretch = []
        stretch.append(step)
    if stretch:
        yield stretch


def _leads_to(before: _Step, after: _Step, layout: Layout) -> bool:
    same = before.tools == after.tools and (layout == "conversation" or before.turn == after.turn)
    return same and after.prompt[: len(before.messages)] == before.messages


def pairs_of(best: Sequence[Sequence[TrainingRow]], worst: Sequence[Sequence[TrainingRow]]) -> list[TrainingPair]:
    """Return rows of the best against rows of the worst, trajectory by trajectory, where both answer one prompt."""
    pairs = []
    for good, bad in zip(best, worst, strict=False):
        for chosen, rejected in zip(good, bad, strict=False):
            if _question(chosen) == _question(rejected) and chosen.messages != rejected.messages:
                pairs.append(TrainingPair(chosen=chosen, rejected=rejected))
    return pairs


def _question(row: TrainingRow) -> tuple[ChatMessage, ...]:
    return row.messages[: row.learnt[0]]


def write_rows(path: Path, rows: Iterable[TrainingRow | TrainingPair]) -> int:
    """Write ``rows`` as JSON lines, the file whole or not at all; return how many there are."""
    count = 0
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with writing_whole(path) as file:
            for row in rows:
                file.write(orjson.dumps(row.model_dump(mode="json"), option=orjson.OPT_APPEND_NEWLINE))
                count += 1
    except OSError as error:
        raise file_error(error, path) from None
    return count


def read_training_rows(path: Path) -> Iterator[TrainingRow]:
    """Yield the rows of a file that :func:`write_rows` wrote; of pairs, the chosen ones."""
    with path.open("rb") as file:
        for line in file:
            data = orjson.loads(line)
            yield TrainingRow.model_validate(data.get("chosen", data))
