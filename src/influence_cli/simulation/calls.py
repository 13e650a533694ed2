"""Asking the models of one conversation, with every answer and failure accounted for.

Invariant: an answer is stored before it is returned, and an answer that is stored already is returned without asking.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, defaultdict
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, Protocol, TypeVar

from influence_cli.credentials import without_secrets
from influence_cli.environments.environment import Episode
from influence_cli.environments.tools import MAX_STEPS
from influence_cli.errors import CallFailedError, FailureKind, InfluenceError
from influence_cli.schemas.configs import SimulationConfig
from influence_cli.schemas.messages import Message, Role, Speaker, ToolCall
from influence_cli.schemas.records import CallRecord, EpisodeProgress, JudgementRecord, MessageRecord
from influence_cli.schemas.requests import ChoiceRequest, Distribution, GenerateRequest, Generation, Usage
from influence_cli.seeding import derive_seed, unit_draw
from influence_cli.simulation.gate import Gate
from influence_cli.simulation.models import RoleModel
from influence_cli.simulation.tally import Tally

_log = logging.getLogger(__name__)
_DETAIL_LENGTH = 500
T = TypeVar("T")


class Stopping(Exception):  # noqa: N818 - not an error: the run ends here, resumably
    """The run is stopping; no further call is begun."""


class Journal(Protocol):
    """Where the answers of conversations go: what the simulation needs of the store's writer."""

    def add_message(self, episode_id: int, call: CallRecord | None, message: MessageRecord) -> int:
        """Store a message, with the call that made it; return its identifier."""
        ...

    def add_judgement(self, episode_id: int, call: CallRecord | None, judgement: JudgementRecord) -> int:
        """Store a judgement, with the call that made it; return its identifier."""
        ...

    def add_call(self, episode_id: int, call: CallRecord) -> int:
        """Store a call that gave nothing to keep."""
        ...

    def drop_message(self, episode_id: int, turn: int, speaker: Speaker, state: str) -> None:
        """Mark the model's message of this turn, speaker and state as no part of the conversation."""
        ...


@dataclass(frozen=True)
class Run:
    """What all conversations of a run share; ``gate`` is shut while the run is paused."""

    config: SimulationConfig
    models: Mapping[Role, RoleModel]
    journal: Journal
    tally: Tally
    gate: Gate = field(default_factory=Gate)

    @cached_property
    def speculates(self) -> bool:
        """Whether to ask ahead of the transition: not where that would take time from what is needed for sure."""
        bound = any(model.backend.capabilities.compute_bound for model in self.models.values())
        return self.config.speculate and not bound


class Calls:
    """The calls of one conversation."""

    def __init__(self, run: Run, episode: Episode, episode_id: int, progress: EpisodeProgress) -> None:
        self._run = run
        self._episode = episode
        self._id = episode_id
        self._ordinals = Counter((call.turn, call.role) for call in progress.calls)
        self._messages: defaultdict[tuple[int, Speaker, str], list[MessageRecord]] = defaultdict(list)
        for message in progress.messages:
            if message.source != "scenario":
                self._messages[message.turn, message.speaker, message.state].append(message)
        self._judgements = {(j.turn, j.role): j for j in progress.judgements}
        self.failed_role: Role | None = None

    def recorded(self, speaker: Speaker, turn: int, state: str, number: int = 0) -> MessageRecord | None:
        """Return the stored message ``number`` of ``speaker`` for this turn and state, if there is one."""
        stored = self._messages.get((turn, speaker, state), ())
        return stored[number] if number < len(stored) else None

    def judged(self, role: Role, turn: int) -> bool:
        """Return whether the judgement of ``role`` on this turn is stored."""
        return (turn, role) in self._judgements

    async def reply(self, turn: int, state: str, messages: Sequence[Message]) -> tuple[MessageRecord, ...]:
        """Return the agent's turn: what it says, with the tool calls it makes before and their results."""
        said: list[MessageRecord] = []
        for step in range(MAX_STEPS + 1):
            heard = (*messages, *(message.said() for message in said))
            message = await self.say("agent", turn, state, heard, step=step)
            said.append(message)
            for call in message.tool_calls:
                number = sum(m.speaker == "tool" for m in said)
                said.append(self.recorded("tool", turn, state, number) or self._use_tool(call, turn, state, number))
            if not message.tool_calls:
                break
        return tuple(said)

    def _use_tool(self, call: ToolCall, turn: int, state: str, number: int) -> MessageRecord:
        point = unit_draw(self._episode.record.seed, turn, "tool", state, number)
        result = self._episode.answer_call(call, state, point)
        message = MessageRecord(
            turn=turn,
            speaker="tool",
            text=result.text,
            state=state,
            source="tool",
            tool_call_id=call.id,
            outcome=result.outcome,
        )
        self._run.journal.add_message(self._id, None, message)
        self._messages[turn, "tool", state].append(message)
        return message

    async def say(
        self, role: Literal["agent", "user"], turn: int, state: str, messages: Sequence[Message], *, step: int = 0
    ) -> MessageRecord:
        """Return what ``role`` says next; CallFailedError or Stopping if there is nothing.

        ``step`` counts the agent's messages within a turn; from :data:`MAX_STEPS` on it is offered no tools.
        """
        stored = self.recorded(role, turn, state, step)
        if stored is not None:
            return stored
        written = self._episode.spoken(role, state, messages)
        if written is not None:
            return self._keep(MessageRecord(turn=turn, speaker=role, text=written.strip(), state=state), None)
        model = self._model(role)
        request = GenerateRequest(
            role=role,
            messages=self._episode.prompt(role, state, messages),
            sampling=model.sampling(self._episode.sampling(role)),
            seed=derive_seed(self._episode.record.seed, turn, role, state, *((step,) if step else ())),
            adapter=model.name.adapter,
            tools=self._episode.tools if role == "agent" and step < MAX_STEPS else (),
        )
        generation: Generation = await self._ask(role, turn, model.backend.generate(request))
        calls = generation.tool_calls if request.tools else ()
        if not generation.text.strip() and not calls:
            call = self._call(role, turn, generation.usage, "empty", "The model answered with nothing.")
            self._fail(role, call)
            raise CallFailedError("empty", "The model answered with nothing.", attempts=generation.usage.requests)
        message = MessageRecord(
            turn=turn,
            speaker=role,
            text=generation.text.strip(),
            state=state,
            finish_reason=generation.finish_reason,
            tool_calls=calls,
        )
        return self._keep(message, self._call(role, turn, generation.usage))

    def _keep(self, message: MessageRecord, call: CallRecord | None) -> MessageRecord:
        self._run.journal.add_message(self._id, call, message)
        if call is not None:
            self._run.tally.add_call(call)
        self._messages[message.turn, message.speaker, message.state].append(message)
        return message

    async def judge(self, role: Role, turn: int, state: str, messages: Sequence[Message]) -> JudgementRecord:
        """Return the distribution of a judging role over its choices; CallFailedError or Stopping if there is none.

        One that has too little mass on the choices is asked for again where another answer may come, and is recorded as
        unusable after the last attempt.
        """
        stored = self._judgements.get((turn, role))
        if stored is not None:
            return stored
        weights = self._episode.judged(role, state, messages)
        if weights is not None:
            return self._record(role, turn, state, _written(self._episode.choices(role, state), weights), None)
        policy = self._run.config.judges
        model = self._model(role)
        prompt = self._episode.prompt(role, state, messages)
        for attempt in range(policy.attempts):
            request = ChoiceRequest(
                role=role,
                messages=prompt,
                choices=self._episode.choices(role, state),
                seed=derive_seed(self._episode.record.seed, turn, role, attempt),
                adapter=model.name.adapter,
                draws=policy.draws,
            )
            try:
                distribution: Distribution = await self._ask(role, turn, model.backend.choose(request))
            except CallFailedError as error:
                if error.kind == "unusable" and attempt + 1 < policy.attempts:
                    continue
                raise
            usable = distribution.mass >= model.minimum_mass
            repeatable = distribution.method in ("logprobs", "sampled") and attempt + 1 < policy.attempts
            if not usable and repeatable:
                detail = f"Mass on the choices: {distribution.mass:.3g}."
                self._fail(role, self._call(role, turn, distribution.usage, "unusable", detail), failed=False)
                continue
            call = self._call(role, turn, distribution.usage)
            return self._record(role, turn, state, distribution, call, usable=usable)
        raise AssertionError("the last attempt always records")

    def _record(
        self,
        role: Role,
        turn: int,
        state: str,
        distribution: Distribution,
        call: CallRecord | None,
        *,
        usable: bool = True,
    ) -> JudgementRecord:
        outcome = None
        if role == "transition" and usable:
            point = unit_draw(self._episode.record.seed, turn, role, "outcome")
            outcome, _ = self._episode.outcome(state, distribution, point)
        expected = distribution.expected_value
        judgement = JudgementRecord(
            turn=turn,
            role=role,
            state=state,
            choices=distribution.choices,
            probabilities=distribution.probabilities,
            mass=distribution.mass,
            method=distribution.method,
            draws=distribution.draws,
            expected=expected,
            outcome=outcome,
            usable=usable,
        )
        self._run.journal.add_judgement(self._id, call, judgement)
        self._judgements[turn, role] = judgement
        tally = self._run.tally
        if call is not None:
            tally.add_call(call)
        if not usable:
            tally.unusable[role] += 1
        elif role == "preference" and expected is not None:
            tally.add_rating(expected)
        return judgement

    def cancelled(self, role: Role, turn: int) -> None:
        """Account for a speculative call that was under way and is no longer needed."""
        call = self._call(role, turn, Usage(), "cancelled", "The conversation went another way.")
        self._fail(role, call, failed=False)

    async def _ask(self, role: Role, turn: int, answer: Coroutine[Any, Any, T]) -> T:
        """Await ``answer`` at the one boundary where whatever a backend raises becomes a classified failure."""
        try:
            await self._run.gate.passed()
        except BaseException:
            answer.close()
            raise
        if self._run.tally.stop is not None:
            answer.close()
            raise Stopping
        started = time.monotonic()
        try:
            return await answer
        except CallFailedError as error:
            taken = {"requests": error.attempts, "latency": time.monotonic() - started}
            usage = (error.usage or Usage()).model_copy(update=taken)
            self._fail(role, self._call(role, turn, usage, error.kind, str(error)))
            raise
        except (InfluenceError, asyncio.CancelledError):
            raise
        except Exception as error:
            _log.exception("A backend failed in the role %s", role)
            detail = f"{type(error).__name__}: {error}"
            usage = Usage(latency=time.monotonic() - started)
            self._fail(role, self._call(role, turn, usage, "internal", detail))
            raise CallFailedError("internal", detail) from error

    def _fail(self, role: Role, call: CallRecord, *, failed: bool = True) -> None:
        if failed:
            self.failed_role = role
        self._run.journal.add_call(self._id, call)
        self._run.tally.add_call(call)

    def _model(self, role: Role) -> RoleModel:
        return self._run.models[role]

    def _call(
        self, role: Role, turn: int, usage: Usage, error: FailureKind | None = None, detail: str | None = None
    ) -> CallRecord:
        ordinal = self._ordinals[turn, role]
        self._ordinals[turn, role] += 1
        return call_record(turn, role, self._model(role), usage, error, detail, ordinal=ordinal)


def call_record(
    turn: int,
    role: Role,
    model: RoleModel,
    usage: Usage,
    error: FailureKind | None = None,
    detail: str | None = None,
    *,
    ordinal: int = 0,
) -> CallRecord:
    """Return the record of a call that took ``usage``, or failed."""
    return CallRecord(
        turn=turn,
        role=role,
        ordinal=ordinal,
        model=str(model.name),
        prompt_tokens=usage.prompt_tokens,
        cached_tokens=usage.cached_tokens,
        completion_tokens=usage.completion_tokens,
        requests=usage.requests,
        latency=usage.latency,
        cost=model.cost(usage),
        cached=usage.cached,
        error=error,
        detail=without_secrets(detail)[:_DETAIL_LENGTH] if detail else None,
    )


def _written(choices: tuple[str, ...], weights: Mapping[str, float]) -> Distribution:
    """Return the distribution that an environment itself gives."""
    total = sum(weights.get(choice, 0.0) for choice in choices)
    if total <= 0.0:
        raise InfluenceError(f"The environment gives no weight to any of the choices {', '.join(choices)}.")
    probabilities = tuple(weights.get(choice, 0.0) / total for choice in choices)
    return Distribution(choices=choices, probabilities=probabilities, mass=1.0, method="scripted")
