"""One conversation, from its initial state to its end.

The critical path of a turn is the agent's reply, then the user's message. Ratings and vetoes run beside the following
turns; the transition runs beside the user's message and the agent's next reply, which are asked for speculatively and
dropped if the conversation ends or their prompt changes.

Invariant: a conversation that is over is freed at once. A failure's traceback holds the frames that it went through, so no
frame of a task holds that task, and a failure that has become data has no traceback: cycles would wait for the garbage
collector, which may be minutes and hundreds of conversations away.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, defaultdict
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from influence_cli.credentials import without_secrets
from influence_cli.environments.environment import Episode
from influence_cli.errors import CallFailedError, InfluenceError
from influence_cli.schemas.messages import Message, Role
from influence_cli.schemas.records import EndReason, EpisodeProgress, JudgementRecord, MessageRecord, TrajectoryEnd
from influence_cli.simulation.calls import Calls, Run, Stopping

_log = logging.getLogger(__name__)


@dataclass
class _Ahead:
    """What is asked for before the transition is known: the user's message, then the agent's next reply."""

    message: asyncio.Task[MessageRecord]
    replying: asyncio.Event
    reply: asyncio.Task[tuple[MessageRecord, ...]]

    def cancel(self) -> None:
        """End both tasks, whatever they are at."""
        self.message.cancel()
        self.reply.cancel()


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
        self._messages: list[Message] = [message.said() for message in episode.opening()]
        self._entered = Counter((m.turn, m.state) for m in progress.messages if m.source == "scenario")
        self._judging: list[asyncio.Task[JudgementRecord]] = []
        self._judges_of: defaultdict[int, list[asyncio.Task[JudgementRecord]]] = defaultdict(list)
        self._transitions: list[JudgementRecord] = []
        self._moved = False

    @property
    def failed_role(self) -> Role | None:
        """Whose call failed last."""
        return self._calls.failed_role

    async def run(self) -> TrajectoryEnd:
        """Return how the conversation ended; Stopping if the run stopped first, InfluenceError if the store did.

        Whatever else goes wrong in it (an environment's own code, a bug) is its failure, and no other conversation's.
        """
        try:
            return await self._to_its_end()
        except Stopping:
            await asyncio.gather(*self._judging, return_exceptions=True)
            raise
        except (InfluenceError, asyncio.CancelledError):
            self._give_up_judging()
            raise
        except Exception as error:  # noqa: BLE001 - one conversation is one piece of data
            _log.exception("A conversation failed in turn %d", self._turn)
            self._give_up_judging()
            await asyncio.gather(*self._judging, return_exceptions=True)
            return self._end("failure", CallFailedError("internal", f"{type(error).__name__}: {error}"))

    async def judged(self, turn: int) -> None:
        """Return once every judge of the agent's reply of ``turn`` has answered or failed."""
        await asyncio.gather(*self._judges_of[turn], return_exceptions=True)

    async def _to_its_end(self) -> TrajectoryEnd:
        try:
            reason = await self._talk()
        except CallFailedError as error:
            await self._settle()
            return self._end("failure", error.with_traceback(None))
        failure = await self._settle()
        return self._end(reason, failure)

    # -- turns --------------------------------------------------------------------------------------------------------

    async def _talk(self) -> EndReason:
        limit = self._run.config.turns or self._episode.turns
        reply: tuple[MessageRecord, ...] = ()
        while True:
            self._turn += 1
            reply = reply or await self._calls.reply(self._turn, self._state, self._messages)
            self._messages.extend(message.said() for message in reply)
            self._replies += 1
            heard = tuple(self._messages)
            self._start_judging(heard)
            last = self._turn >= limit
            before = self._state
            ahead = None if last else self._run_ahead(heard)
            try:
                stale = await self._move(heard)
            except (CallFailedError, Stopping):
                await self._keep(ahead)
                raise
            except BaseException:
                if ahead is not None:
                    ahead.cancel()
                raise
            ended = self._episode.terminal(self._state)
            if stale or ended:
                await self._drop(ahead, before)
                ahead = None
            if ended:
                return "terminal_state"
            if last:
                return "turn_limit"
            reply = await self._hear_user(ahead, before, stale=stale)

    async def _hear_user(self, ahead: _Ahead | None, before: str, *, stale: bool) -> tuple[MessageRecord, ...]:
        """Add what the user says now; return the agent's next reply where it was had ahead of time."""
        if stale and self._messages[-1].speaker == "user":
            return ()
        reply: tuple[MessageRecord, ...] = ()
        if ahead is None:
            asked_in = self._state if stale else before
            message = await self._calls.say("user", self._turn, asked_in, tuple(self._messages))
        else:
            message = await ahead.message
        if self._state != before:
            await self._drop_reply(ahead, before)
        elif ahead is not None:
            reply = await ahead.reply
        self._messages.append(message.said())
        return reply

    def _start_judging(self, heard: Sequence[Message]) -> None:
        roles: tuple[Role, ...] = ("preference", "veto") if self._run.config.veto else ("preference",)
        for role in roles:
            if self._episode.asks(role, self._state):
                judging = _begin(self._calls.judge(role, self._turn, self._state, heard))
                self._judging.append(judging)
                self._judges_of[self._turn].append(judging)

    async def _move(self, heard: Sequence[Message]) -> bool:
        """Let the transition model decide what follows; return whether a user message asked for before is stale."""
        before = self._state
        if self._episode.asks("transition", before):
            try:
                judgement = await self._calls.judge("transition", self._turn, before, heard)
            finally:
                self._moved = True
            self._transitions.append(judgement)
            if judgement.outcome is not None:
                self._state = self._episode.spec.states[before].transitions[judgement.outcome]
        else:
            self._state = self._episode.automatic(before)
        if self._state == before:
            return False
        for number, message in enumerate(self._episode.entry(self._state, turn=self._turn)):
            if number >= self._entered[self._turn, self._state]:
                self._run.journal.add_message(self._id, None, message)
            self._messages.append(message.said())
        return self._episode.changes_prompts(before, self._state)

    # -- speculation --------------------------------------------------------------------------------------------------

    def _run_ahead(self, heard: Sequence[Message]) -> _Ahead | None:
        """Go on as if the transition changed nothing; not where it is known already or nothing is to be known."""
        waits = self._episode.asks("transition", self._state)
        if not self._run.speculates or not waits or self._calls.judged("transition", self._turn):
            return None
        self._moved = False
        message, replying = _begin(self._calls.say("user", self._turn, self._state, heard)), asyncio.Event()
        return _Ahead(message, replying, _begin(self._reply_ahead(message, replying, self._state, heard)))

    async def _reply_ahead(
        self, message: asyncio.Task[MessageRecord], replying: asyncio.Event, state: str, heard: Sequence[Message]
    ) -> tuple[MessageRecord, ...]:
        """Return the agent's next reply if the user has spoken and the transition is still open then; else nothing."""
        await asyncio.wait((message,))
        if self._moved or message.cancelled() or message.exception() is not None:
            return ()
        replying.set()
        return await self._calls.reply(self._turn + 1, state, (*heard, message.result().said()))

    async def _keep(self, ahead: _Ahead | None) -> None:
        """Wait for what is paid for, so that it is stored for when the conversation is taken up again."""
        if ahead is not None:
            await asyncio.gather(ahead.message, ahead.reply, return_exceptions=True)

    async def _drop(self, ahead: _Ahead | None, state: str) -> None:
        """Give up what was asked for ahead in ``state``; what was answered stays in the accounts."""
        await self._drop_reply(ahead, state)
        if ahead is not None:
            await self._cancel(ahead.message, "user", self._turn)
            self._run.tally.speculations_dropped += 1
        if self._calls.recorded("user", self._turn, state) is not None:
            self._run.journal.drop_message(self._id, self._turn, "user", state)

    async def _drop_reply(self, ahead: _Ahead | None, state: str) -> None:
        """Give up the agent's next reply alone: another state asks for another one."""
        if ahead is not None:
            if ahead.replying.is_set():
                await self._cancel(ahead.reply, "agent", self._turn + 1)
            else:
                ahead.reply.cancel()
        if self._calls.recorded("agent", self._turn + 1, state) is not None:
            for speaker in ("agent", "tool"):
                self._run.journal.drop_message(self._id, self._turn + 1, speaker, state)

    async def _cancel(self, call: asyncio.Task[Any], role: Role, turn: int) -> None:
        if not call.done():
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)
            if call.cancelled():
                self._calls.cancelled(role, turn)

    # -- endings ------------------------------------------------------------------------------------------------------

    def _give_up_judging(self) -> None:
        for task in self._judging:
            task.cancel()

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
            detail=without_secrets(str(failure)) if failure else None,
        )


def _begin(work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    """Return a task whose failure is looked at later, or never if the run stops first."""
    task = asyncio.ensure_future(work)
    task.add_done_callback(lambda done: done.cancelled() or done.exception())
    return task
