"""One conversation at a time: ``reset`` gives what the agent sees, ``step`` takes its reply."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from influence_cli.backends.payloads import chat_payload
from influence_cli.environments.environment import Episode
from influence_cli.errors import InfluenceError
from influence_cli.gym.episodes import EpisodeStream
from influence_cli.gym.outside import OutsideAgent, Reply
from influence_cli.schemas.configs import SimulationConfig
from influence_cli.schemas.messages import Role
from influence_cli.schemas.records import JudgementRecord, TrajectoryEnd
from influence_cli.schemas.requests import GenerateRequest
from influence_cli.simulation.calls import Stopping
from influence_cli.simulation.conversation import Conversation
from influence_cli.simulation.models import RoleModel
from influence_cli.simulation.single import KeptConversation, begin_conversation

Observation = list[dict[str, Any]]
"""The messages that the agent sees, as chat APIs have them."""

Info = dict[str, Any]
Step = tuple[Observation, float, bool, bool, Info]
Reward = Callable[[Info], float]
"""What a reply is worth, from the step's ``info``."""

_JUDGES: tuple[Role, ...] = ("preference", "veto", "transition")


def rating(info: Info) -> float:
    """Return the rating of the reply, nan where there is no usable one; 0 within a turn, at a call of a tool."""
    if info["within_turn"]:
        return 0.0
    found = info["rating"]
    return math.nan if found is None else float(found)


@dataclass
class _Under:
    """A conversation under way."""

    episode: Episode
    conversation: Conversation
    kept: KeptConversation
    agent: OutsideAgent
    task: asyncio.Task[TrajectoryEnd]
    request: GenerateRequest | None = None


class AsyncTextEnvironment:
    """The core: use from one event loop. ``models`` speak for every role but the agent's."""

    def __init__(
        self,
        stream: EpisodeStream,
        models: Mapping[Role, RoleModel],
        config: SimulationConfig,
        *,
        agent: RoleModel,
        reward: Reward = rating,
    ) -> None:
        """``agent`` lends its name and price to the agent outside; its backend is never asked."""
        self._stream = stream
        self._models = models
        self._config = config.model_copy(update={"speculate": False})
        self._agent = agent
        self._reward = reward
        self._under: _Under | None = None

    async def reset(
        self, *, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[Observation, Info]:
        """Begin the next conversation; return what the agent sees first, and who and what it is about.

        ``seed`` begins the sequence of conversations anew; ``options`` choose one: ``scenario``, ``initial_state``, and
        perhaps ``environment``, ``population``, ``cue``, ``sample``. Raises InfluenceError if it fails before the agent
        is asked.
        """
        await self._give_up()
        if seed is not None:
            self._stream.restart(seed)
        episode = self._stream.chosen(options) if options else self._stream.next()
        outside = OutsideAgent()
        speaks = replace(self._agent, backend=outside)
        conversation, kept = begin_conversation(episode, {**self._models, "agent": speaks}, self._config)
        task = asyncio.ensure_future(conversation.run())
        self._under = under = _Under(episode, conversation, kept, outside, task)
        await self._until_asked(under)
        if under.request is None:
            end = _ended(task)
            why = f"{end.failure}: {end.detail}" if end else "its budget is used up"
            raise InfluenceError(f"The conversation ended before the agent was asked: {why}")
        return [chat_payload(m) for m in under.request.messages], {**_about(episode), **_wanted(under.request)}

    async def step(self, reply: Reply) -> Step:
        """Take the agent's reply; return observation, reward, terminated, truncated and info.

        ``terminated``: the conversation came to an end of its own; ``truncated``: it was as long as it may be, or failed
        (``info["end"]`` says how). A reply that calls tools is answered by their results, within the same turn.
        """
        under = self._under
        if under is None or under.request is None:
            raise InfluenceError("No conversation is under way.", hint="Call reset first.")
        under.agent.answer(reply)
        under.request = None
        await self._until_asked(under)
        last = next((m for m in reversed(under.kept.messages) if m.speaker == "agent" and m.source == "model"), None)
        within = under.request is not None and last is not None and bool(last.tool_calls)
        if last is not None and not within:
            await under.conversation.judged(last.turn)
        info = {
            "turn": last.turn if last else 0,
            "within_turn": within,
            "state": under.kept.messages[-1].state,
            **self._judged(under.kept, last.turn if last and not within else 0),
        }
        return self._outcome(under, info)

    def another(self) -> AsyncTextEnvironment:
        """Return an environment that shares models and sequence with this one, for a conversation beside it."""
        return AsyncTextEnvironment(self._stream, self._models, self._config, agent=self._agent, reward=self._reward)

    def choices(self) -> list[dict[str, Any]]:
        """Return what ``reset(options=...)`` can choose: every conversation of one pass over the settings, in its order."""
        return self._stream.choices()

    async def aclose(self) -> None:
        """Give up what is under way. The models are whoever's that gave them."""
        await self._give_up()

    def _outcome(self, under: _Under, info: Info) -> Step:
        end = _ended(under.task)
        if under.request is not None:
            info.update(_wanted(under.request))
            return [chat_payload(m) for m in under.request.messages], self._reward(info), False, False, info
        info["end"] = end.model_dump(mode="json") if end else None
        info["state"] = end.state if end else info["state"]
        under.kept.end = end
        info["trajectory"] = under.kept.trajectory()
        said = [message.said() for message in under.kept.messages]
        seen = [chat_payload(m) for m in under.episode.prompt("agent", under.kept.messages[-1].state, said)]
        over = end is not None and end.reason == "terminal_state"
        return seen, self._reward(info), over, not over, info

    def _judged(self, kept: KeptConversation, turn: int) -> Info:
        """Return what the judges said of a turn; None where they said nothing usable."""
        found = {role: kept.judged(role, turn) for role in _JUDGES}
        values = {role: each.expected if each and each.usable else None for role, each in found.items()}
        return {
            "rating": values["preference"],
            "veto": values["veto"],
            "judgements": {role: _told(each) for role, each in found.items() if each is not None},
        }

    async def _until_asked(self, under: _Under) -> None:
        """Return when the agent is asked, or the conversation is over."""
        asked = asyncio.ensure_future(under.agent.asked())
        try:
            await asyncio.wait({asked, under.task}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if asked.done():
                under.request = asked.result()
            asked.cancel()
        if under.request is None:
            _ended(under.task)

    async def _give_up(self) -> None:
        under, self._under = self._under, None
        if under is not None and not under.task.done():
            under.task.cancel()
            with suppress(asyncio.CancelledError):
                await under.task


def _ended(task: asyncio.Task[TrajectoryEnd]) -> TrajectoryEnd | None:
    """Return how a conversation ended; None if it has not, or a budget ended it. A bug is raised."""
    if not task.done():
        return None
    try:
        return task.result()
    except Stopping:
        return None


def _about(episode: Episode) -> Info:
    record = episode.record
    return {
        **record.key.model_dump(mode="json"),
        **record.model_dump(mode="json", include={"population", "cue", "split", "seed", "profile"}),
    }


def _wanted(request: GenerateRequest) -> Info:
    """Return what a run would ask its agent with: ``reply_seed``, sampling, and the tools that may be called."""
    return {
        "reply_seed": request.seed,
        "sampling": request.sampling.model_dump(mode="json"),
        "tools": [tool.model_dump(mode="json") for tool in request.tools],
    }


def _told(judgement: JudgementRecord) -> Info:
    return judgement.model_dump(mode="json", exclude={"turn", "role", "state"})
