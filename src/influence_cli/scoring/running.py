"""Asking everything that is missing: several models at once, within budgets, every failure counted.

Invariant: every answer is stored as it comes, with what it took; a stop or ``kill -9`` loses what is in flight and nothing
else, and what is stored is not asked again unless it failed.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from influence_cli.backends.together import together
from influence_cli.errors import InfluenceError
from influence_cli.schemas.configs import Budget
from influence_cli.schemas.records import CallRecord, ScoreRecord
from influence_cli.scoring.judging import Answer, Asking, judge
from influence_cli.scoring.questions import Item, ScoreKey, shared_prefixes
from influence_cli.simulation.gate import Gate
from influence_cli.simulation.models import RoleModel
from influence_cli.simulation.runner import GRACE
from influence_cli.simulation.tally import FATAL_KINDS, Stoppable

Numbered = tuple[int, Mapping[str, Any]]
"""A trajectory and its number in the store."""

Task = tuple[Item, RoleModel]
"""One question, and the model that it is put to."""

ItemsOf = Callable[[int, Mapping[str, Any]], Sequence[Task]]
"""What is asked about a trajectory, and of whom."""

StopReason = Literal["signal", "cost", "tokens"]
_STOP_POLL = 0.05


class ScoreBook(Protocol):
    """Where scores go: what scoring needs of the store's writer."""

    def add_scores(
        self, scores: Sequence[tuple[int, ScoreRecord]], calls: Sequence[tuple[int, CallRecord]] = ()
    ) -> None:
        """Store scores by episode, with the calls that they took."""
        ...

    def scored(self) -> set[ScoreKey]:
        """Return what is scored already and did not fail."""
        ...


@dataclass
class ScoreTally:
    """What came of one sitting of scoring: counts of scores, and what the models were given and gave.

    ``earlier_*`` is what counts against the budget besides: what a training run had used before.
    """

    budget: Budget = field(default_factory=Budget)
    earlier_tokens: int = 0
    earlier_cost: float = 0.0
    skipped: int = 0
    done: int = 0
    unusable: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    quotes_dropped: int = 0
    calls: int = 0
    requests: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    latency: float = 0.0
    cost: float = 0.0
    cached_answer_tokens: int = 0
    unpriced_calls: int = 0
    stop: StopReason | None = None

    @property
    def tokens(self) -> int:
        """Tokens of prompts and answers, those of answers from the cache not."""
        return self.prompt_tokens + self.completion_tokens - self.cached_answer_tokens

    def add(self, answer: Answer) -> None:
        """Count a score and what it took; stop if a budget is used up."""
        self.done += 1
        self.quotes_dropped += answer.quotes_dropped
        if answer.score.failure is not None:
            self.failed[answer.score.failure] += 1
        elif not answer.score.usable:
            self.unusable += 1
        for call in answer.calls:
            self.add_call(call)

    def add_call(self, call: CallRecord) -> None:
        """Count a call."""
        self.calls += 1
        self.requests += call.requests
        self.prompt_tokens += call.prompt_tokens
        self.cached_tokens += call.cached_tokens
        self.completion_tokens += call.completion_tokens
        self.latency += call.latency
        if call.cached:
            self.cached_answer_tokens += call.prompt_tokens + call.completion_tokens
        if call.cost is None:
            self.unpriced_calls += 1
        else:
            self.cost += call.cost
        self.check_budget()

    def halt(self) -> None:
        """Stop as a signal asks for: nothing more is asked, and what is in flight is stored."""
        self.stop = self.stop or "signal"

    def check_budget(self) -> None:
        """Stop if a budget is used up; it may be before anything is asked."""
        if self.stop is not None:
            return
        if self.budget.cost is not None and self.earlier_cost + self.cost >= self.budget.cost:
            self.stop = "cost"
        elif self.budget.tokens is not None and self.earlier_tokens + self.tokens >= self.budget.tokens:
            self.stop = "tokens"


async def ask_all(
    trajectories: Iterable[Numbered],
    items_of: ItemsOf,
    asking: Asking,
    book: ScoreBook,
    tally: ScoreTally,
    *,
    concurrency: int,
    told: Callable[[ScoreTally], None] = lambda _: None,
    gate: Gate | None = None,
) -> None:
    """Put every question that has no answer yet, ``concurrency`` conversations at once; the tally says how it went.

    None is put while ``gate`` is shut. Raises InfluenceError for a refused key or an unknown model; other failures are
    recorded and counted.
    """
    waiting = missing(trajectories, items_of, asking, book.scored(), tally)
    passing = gate or Gate()

    async def work() -> None:
        while tally.stop is None:
            group = next(waiting, None)
            if group is None:
                return
            await _ask_group(group, asking, book, tally, passing)
            told(tally)

    await together([work() for _ in range(concurrency)])


async def ended(asking: asyncio.Future[Any], tally: Stoppable) -> None:
    """Return once ``asking`` has ended; after a stop, what is in flight has :data:`GRACE` seconds. Raises what it raised.

    It may be cancelled meanwhile: then it has ended.
    """
    try:
        while tally.stop is None and not asking.done():
            await asyncio.wait((asking,), timeout=_STOP_POLL)
        await asyncio.wait((asking,), timeout=GRACE)
    finally:
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
    if not asking.cancelled():
        asking.result()


def missing(
    trajectories: Iterable[Numbered], items_of: ItemsOf, asking: Asking, known: set[ScoreKey], tally: ScoreTally
) -> Iterator[list[Task]]:
    """Yield what is to be asked, one conversation and model at a time, so that its questions share one reading."""
    for number, trajectory in trajectories:
        by_model: dict[int, list[Task]] = {}
        for item, model in items_of(number, trajectory):
            if item.key(str(model.name), asking.name_for(item)) in known:
                tally.skipped += 1
            else:
                by_model.setdefault(id(model), []).append((item, model))
        yield from by_model.values()


async def _ask_group(group: Sequence[Task], asking: Asking, book: ScoreBook, tally: ScoreTally, gate: Gate) -> None:
    """Ask one model about one conversation: of each frame one question first, which is read whole, then the others."""
    model = group[0][1]

    async def ask(item: Item) -> None:
        await gate.passed()
        if tally.stop is not None:  # it may have come while the gate was shut
            return
        answer = await judge(item, model, asking)
        keep(book, [answer], tally)
        refuse_fatal(answer, model)

    for alike in shared_prefixes([item for item, _ in group]):
        for part in (alike[:1], alike[1:]):
            if tally.stop is not None:
                return
            await asyncio.gather(*(ask(item) for item in part))


def keep(book: ScoreBook, answers: Sequence[Answer], tally: ScoreTally) -> None:
    """Store answers with their calls, and count them."""
    if not answers:
        return
    calls = [(answer.episode_id, call) for answer in answers for call in answer.calls]
    book.add_scores([(answer.episode_id, answer.score) for answer in answers], calls)
    for answer in answers:
        tally.add(answer)


def refuse_fatal(answer: Answer, model: RoleModel) -> None:
    """Raise InfluenceError where no other question will fare better: a refused key, an unknown model."""
    if answer.score.failure in FATAL_KINDS:
        detail = next((call.detail for call in answer.calls if call.detail), answer.score.failure)
        hint = "Check the model's name, its key and its account; what is stored stays."
        raise InfluenceError(f"{model.name} cannot be asked: {detail}", hint=hint)
