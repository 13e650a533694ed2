"""One conversation, from its initial state to its end.

The critical path of a turn is the agent's reply, then the user's message. Ratings and vetoes run beside the following
turns; the transition runs beside the user's message, which is asked for speculatively and dropped if the conversation
ends or its prompt changes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from statistics import fmean
from typing import Any

from influence_cli.environments.environment import Episode
from influence_cli.errors import CallFailedError
from influence_cli.schemas.messages import Message, Role
from influence_cli.schemas.records import EndReason, EpisodeProgress, JudgementRecord, MessageRecord, TrajectoryEnd
from influence_cli.simulation.calls import Calls, Run, Stopping


class Conversation:
    """One rollout; :meth:`run` may be called once.

    ``progress`` is what an earlier sitting stored of it: nothing of that is asked for again.
    """

    def __init__(self, run: Run, episode: Episode, episode_id: int, progress: EpisodeProgress) -> None:
        self._run = run
        self._episode = episode
        self._id = episode_id
        self._calls = Calls(run, episode, episode_id, progress)
        self._state = episode.start
        self._turn = 0
        self._replies = 0
        self._messages: list[Message] = [_spoken(message) for message in episode.opening()]
        self._entered = {(m.turn, m.state) for m in progress.messages if m.source == "scenario"}
        self._judging: list[asyncio.Task[JudgementRecord]] = []
        self._transitions: list[JudgementRecord] = []

    @property
    def failed_role(self) -> Role | None:
        """Whose call failed last."""
        return self._calls.failed_role

    async def run(self) -> TrajectoryEnd:
        """Return how the conversation ended; Stopping if the run stopped first, InfluenceError if the store did."""
        try:
            reason = await self._talk()
        except CallFailedError as error:
            await self._settle()
            return self._end("failure", error)
        except Stopping:
            await asyncio.gather(*self._judging, return_exceptions=True)
            raise
        except BaseException:
            for task in self._judging:
                task.cancel()
            raise
        failure = await self._settle()
        return self._end(reason, failure)

    # -- turns --------------------------------------------------------------------------------------------------------

    async def _talk(self) -> EndReason:
        limit = self._run.config.turns or self._episode.turns
        while True:
            self._turn += 1
            reply = await self._calls.say("agent", self._turn, self._state, self._messages)
            self._messages.append(_spoken(reply))
            self._replies += 1
            heard = tuple(self._messages)
            self._start_judging(heard)
            last = self._turn >= limit
            before = self._state
            speculation = None if last else self._speculate(heard)
            try:
                stale = await self._move(heard)
            except (CallFailedError, Stopping):
                await self._keep(speculation)
                raise
            except BaseException:
                if speculation is not None:
                    speculation.cancel()
                raise
            ended = self._episode.terminal(self._state)
            if stale or ended:
                await self._drop(speculation, before)
                speculation = None
            if ended:
                return "terminal_state"
            if last:
                return "turn_limit"
            if speculation is None:
                message = await self._calls.say("user", self._turn, self._state, tuple(self._messages))
            else:
                message = await speculation
            self._messages.append(_spoken(message))

    def _start_judging(self, heard: Sequence[Message]) -> None:
        roles: tuple[Role, ...] = ("preference", "veto") if self._run.config.veto else ("preference",)
        for role in roles:
            if self._episode.asks(role, self._state):
                self._judging.append(_begin(self._calls.judge(role, self._turn, self._state, heard)))

    async def _move(self, heard: Sequence[Message]) -> bool:
        """Let the transition model decide what follows; return whether a user message asked for before is stale."""
        before = self._state
        if self._episode.asks("transition", before):
            judgement = await self._calls.judge("transition", self._turn, before, heard)
            self._transitions.append(judgement)
            if judgement.outcome is not None:
                self._state = self._episode.spec.states[before].transitions[judgement.outcome]
        else:
            self._state = self._episode.automatic(before)
        if self._state == before:
            return False
        for message in self._episode.entry(self._state, turn=self._turn):
            if (self._turn, self._state) not in self._entered:
                self._run.journal.add_message(self._id, None, message)
            self._messages.append(_spoken(message))
        return self._episode.changes_prompts(before, self._state)

    # -- speculation --------------------------------------------------------------------------------------------------

    def _speculate(self, heard: Sequence[Message]) -> asyncio.Task[MessageRecord] | None:
        """Ask for the user's message before the transition is known; not where it is known already."""
        waits = self._episode.asks("transition", self._state)
        if not self._run.config.speculate or not waits or self._calls.judged("transition", self._turn):
            return None
        return _begin(self._calls.say("user", self._turn, self._state, heard))

    async def _keep(self, speculation: asyncio.Task[MessageRecord] | None) -> None:
        """Wait for a message that is paid for, so that it is stored for when the conversation is taken up again."""
        if speculation is not None:
            await asyncio.gather(speculation, return_exceptions=True)

    async def _drop(self, speculation: asyncio.Task[MessageRecord] | None, state: str) -> None:
        """Give up the user's message asked for in ``state``; what was answered stays in the accounts."""
        if speculation is not None and not speculation.done():
            speculation.cancel()
            await asyncio.gather(speculation, return_exceptions=True)
            if speculation.cancelled():
                self._calls.cancelled("user", self._turn)
        if self._calls.recorded("user", self._turn, state) is not None:
            self._run.journal.drop_message(self._id, self._turn, "user", state)
        if speculation is not None:
            self._run.tally.speculations_dropped += 1

    # -- endings ------------------------------------------------------------------------------------------------------

    async def _settle(self) -> CallFailedError | None:
        """Wait for the judges that are still at work; return the first failure among them."""
        failure: CallFailedError | None = None
        for answer in await asyncio.gather(*self._judging, return_exceptions=True):
            if isinstance(answer, CallFailedError):
                failure = failure or answer
            elif isinstance(answer, BaseException):
                raise answer
        return failure

    def _end(self, reason: EndReason, failure: CallFailedError | None) -> TrajectoryEnd:
        judgements = [t.result() for t in self._judging if not t.cancelled() and t.exception() is None]
        ratings = {j.turn: j.expected for j in judgements if j.role == "preference" and j.usable}
        vetoes = [j.expected for j in judgements if j.role == "veto" and j.usable and j.expected is not None]
        values = [rating for rating in ratings.values() if rating is not None]
        return TrajectoryEnd(
            status="complete" if failure is None else "failed",
            reason=reason if failure is None else "failure",
            state=self._state,
            turns=self._replies,
            mean_rating=fmean(values) if values else None,
            final_rating=ratings.get(self._replies),
            mean_veto=fmean(vetoes) if vetoes else None,
            unusable=sum(not j.usable for j in (*judgements, *self._transitions)),
            failure=failure.kind if failure else None,
            detail=str(failure) if failure else None,
        )


def _spoken(record: MessageRecord) -> Message:
    return Message(
        speaker=record.speaker, text=record.text, tool_calls=record.tool_calls, tool_call_id=record.tool_call_id
    )


def _begin(work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    """Return a task whose failure is looked at later, or never if the run stops first."""
    task = asyncio.ensure_future(work)
    task.add_done_callback(lambda done: done.cancelled() or done.exception())
    return task
