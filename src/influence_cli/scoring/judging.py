"""Asking a model about one conversation, in one of three ways, with every call accounted for.

Invariant: an answer is a distribution over the rubric's answers, or a recorded failure; a quote that does not stand in
what was read is dropped, and the score says so.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from influence_cli.backends.logprobs import count_answers
from influence_cli.environments.layout import answer_line
from influence_cli.errors import CallFailedError, FailureKind, InfluenceError
from influence_cli.schemas.messages import ChatMessage
from influence_cli.schemas.records import CallRecord, ScoreRecord
from influence_cli.schemas.requests import ChoiceRequest, Distribution, GenerateRequest, Sampling, Usage
from influence_cli.scoring.questions import Item
from influence_cli.scoring.quotes import verified_quotes
from influence_cli.seeding import derive_seed
from influence_cli.simulation.calls import call_record
from influence_cli.simulation.models import RoleModel

JudgeMethod = Literal["distribution", "structured", "vote"]
METHODS: tuple[JudgeMethod, ...] = ("distribution", "structured", "vote")

RATIONALE_TOKENS = 600
_VOTE_TOKENS = 8
_STRUCTURED = (
    "Answer with a JSON object: `rationale` (two or three sentences), `quotes` (up to three short passages of the "
    "assistant's words, copied exactly), `answer` (your answer). For `answer`: "
)
_log = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True)
class Asking:
    """How models are asked; ``orders`` and ``directions`` ask each question both ways round and take the mean."""

    method: JudgeMethod = "distribution"
    votes: int = 5
    orders: bool = False
    directions: bool = False
    seed: int = 0
    draws: int = 20

    def name_for(self, item: Item) -> str:
        """Return the method as a score names it: only what can be turned round is."""
        votes = str(self.votes) if self.method == "vote" else ""
        directions = "+directions" if self.directions and item.rubric.reversible else ""
        return f"{self.method}{votes}{'+orders' if self.orders else ''}{directions}"

    def ways(self, item: Item) -> list[Way]:
        """Return the ways in which ``item`` is asked, one without debiasing."""
        directions = (False, True) if self.directions and item.rubric.reversible else (False,)
        orders = (False, True) if self.orders else (False,)
        return [Way(self, item, d, o) for d in directions for o in orders]

    @classmethod
    def named(cls, method: str) -> Asking:
        """Return how it was asked for a score that names ``method``, seed and draws aside; ValueError for ``computed``."""
        way, *turned = method.split("+")
        name = next((known for known in METHODS if known == way.rstrip("0123456789")), None)
        if name is None:
            raise ValueError(f"no model was asked by {method!r}")
        votes = int(way.removeprefix(name) or cls.votes)
        return cls(name, votes=votes, orders="orders" in turned, directions="directions" in turned)


@dataclass(frozen=True)
class Way:
    """One wording of one question: the scale as it is or reversed, the answers listed forwards or backwards."""

    asking: Asking
    item: Item
    reversed_scale: bool
    backwards: bool

    def prompt(self) -> tuple[ChatMessage, ...]:
        """Return what the model reads: it ends with :attr:`question`."""
        return self.item.frame.prompt(self.question)

    @property
    def question(self) -> str:
        """What stands after everything that the questions of one frame share."""
        item, answers = self.item, self.item.rubric.choices
        if self.asking.orders:
            shown = ", ".join(answers[::-1] if self.backwards else answers)
            line = f"Answer only with one of: {shown}."
        else:
            line = answer_line(answers)
        if self.asking.method == "structured":
            line = _STRUCTURED + line.replace("Answer only with", "only")
        parts = (item.about, item.rubric.asked(reversed_scale=self.reversed_scale), line)
        return "\n".join(filter(None, parts))

    def request(self, model: RoleModel) -> ChoiceRequest:
        """Return the closed question."""
        return ChoiceRequest(
            role=self.item.frame.role,
            messages=self.prompt(),
            choices=self.item.rubric.choices,
            seed=self.seed(),
            adapter=model.name.adapter,
            draws=self.asking.draws,
        )

    def seed(self, *more: str | int) -> int:
        """Return the seed of the question, or of one of its draws."""
        item = self.item
        turned = (int(self.reversed_scale), int(self.backwards))
        return derive_seed(self.asking.seed, item.name, item.episode_id, item.turn, *turned, *more)

    def shares(self, distribution: Distribution) -> dict[str, float]:
        """Return the probability of each answer in the words of the scale as it is."""
        rubric = self.item.rubric
        said = rubric.mirrored if self.reversed_scale else str
        return {answer: distribution.probability(said(answer)) for answer in rubric.choices}


@dataclass
class Reading:
    """What one way of asking gave."""

    shares: dict[str, float]
    mass: float
    rationale: str | None = None
    quotes: tuple[str, ...] = ()
    dropped: int = 0


@dataclass
class Answer:
    """A score with the calls that it took, and the quotes that were dropped."""

    episode_id: int
    score: ScoreRecord
    calls: list[CallRecord] = field(default_factory=list)
    quotes_dropped: int = 0


class Account:
    """The calls of one score."""

    def __init__(self, item: Item, model: RoleModel) -> None:
        self.calls: list[CallRecord] = []
        self._item = item
        self._model = model

    async def ask(self, answer: Coroutine[Any, Any, T]) -> T:
        """Return ``answer``, its usage kept; whatever a backend raises becomes a classified failure."""
        started = time.monotonic()
        try:
            found = await answer
        except CallFailedError as error:
            taken = {"requests": error.attempts, "latency": time.monotonic() - started}
            self.add((error.usage or Usage()).model_copy(update=taken), error.kind, str(error))
            raise
        except (InfluenceError, asyncio.CancelledError):
            raise
        except Exception as error:
            _log.exception("A backend failed as %s", self._item.frame.role)
            detail = f"{type(error).__name__}: {error}"
            self.add(Usage(latency=time.monotonic() - started), "internal", detail)
            raise CallFailedError("internal", detail) from error
        self.add(found.usage)  # type: ignore[attr-defined]
        return found

    def add(self, usage: Usage, error: FailureKind | None = None, detail: str | None = None) -> None:
        """Keep a call."""
        item = self._item
        self.calls.append(call_record(item.turn, item.frame.role, self._model, usage, error, detail))


async def judge(item: Item, model: RoleModel, asking: Asking) -> Answer:
    """Return a score and what it took; a call that failed gives a score that says so."""
    account = Account(item, model)
    facts = facts_of(item, model, asking)
    one = {"distribution": _distribution, "structured": _structured, "vote": _vote}[asking.method]
    try:
        readings = await _all([one(way, model, account) for way in asking.ways(item)])
    except CallFailedError as error:
        failed = ScoreRecord(**facts, usable=False, failure=error.kind)
        return Answer(item.episode_id, failed, account.calls)
    score = combined_score(facts, readings, model.minimum_mass)
    return Answer(item.episode_id, score, account.calls, sum(reading.dropped for reading in readings))


def facts_of(item: Item, model: RoleModel, asking: Asking) -> dict[str, Any]:
    """Return what a score says whatever the answer: its turn, rubric, hash, judge and method."""
    names = {"rubric": item.name, "rubric_hash": item.hashed, "judge": str(model.name)}
    return {"turn": item.turn, "method": asking.name_for(item), **names}


def combined_score(facts: Mapping[str, Any], readings: Sequence[Reading], minimum_mass: float) -> ScoreRecord:
    """Return the mean of the ways of asking; usable only if each of them is."""
    mass = min(reading.mass for reading in readings)
    shares = {a: sum(r.shares[a] for r in readings) / len(readings) for a in readings[0].shares}
    rationale = "\n".join(reading.rationale for reading in readings if reading.rationale)
    return ScoreRecord(
        **facts,
        value=expected(shares),
        mass=mass,
        usable=mass >= minimum_mass,
        distribution=shares,
        rationale=rationale or None,
        quotes=tuple(dict.fromkeys(quote for reading in readings for quote in reading.quotes)),
    )


def expected(shares: dict[str, float]) -> float | None:
    """Return the mean of answers that are numbers; None if one is none."""
    try:
        return sum(float(answer) * share for answer, share in shares.items())
    except ValueError:
        return None


async def _all(work: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """Return all results; the first failure only once every call has ended and is accounted for."""
    found = await asyncio.gather(*work, return_exceptions=True)
    for each in found:
        if isinstance(each, BaseException):
            raise each
    return found  # type: ignore[return-value]


async def _distribution(way: Way, model: RoleModel, account: Account) -> Reading:
    distribution = await account.ask(model.backend.choose(way.request(model)))
    return Reading(way.shares(distribution), distribution.mass)


async def _vote(way: Way, model: RoleModel, account: Account) -> Reading:
    """Return the shares of answers sampled one by one; those that are none of the answers lower the mass."""
    answers = way.item.rubric.choices
    sampling = Sampling(temperature=1.0, max_tokens=max(_VOTE_TOKENS, *map(len, answers)))

    def request(number: int) -> GenerateRequest:
        return GenerateRequest(
            role=way.item.frame.role,
            messages=way.prompt(),
            sampling=sampling,
            seed=way.seed("vote", number),
            adapter=model.name.adapter,
        )

    drawn = [account.ask(model.backend.generate(request(number))) for number in range(way.asking.votes)]
    texts = [generation.text for generation in await _all(drawn)]
    distribution = count_answers(answers, texts, Usage(requests=0))
    return Reading(way.shares(distribution), distribution.mass)


async def _structured(way: Way, model: RoleModel, account: Account) -> Reading:
    """Return an answer with its reasons; what it quotes must stand in what was read."""
    answers = way.item.rubric.choices
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {
            "rationale": {"type": "string"},
            "quotes": {"type": "array", "items": {"type": "string"}, "maxItems": 3},
            "answer": {"type": "string", "enum": list(answers)},
        },
        "required": ["rationale", "quotes", "answer"],
        "additionalProperties": False,
    }
    request = GenerateRequest(
        role=way.item.frame.role,
        messages=way.prompt(),
        sampling=Sampling(temperature=0.0, max_tokens=RATIONALE_TOKENS),
        seed=way.seed("structured"),
        adapter=model.name.adapter,
        json_schema=schema,
    )
    generation = await account.ask(model.backend.generate(request))
    try:
        answer = json.loads(generation.text)
        chosen, said, quotes = str(answer["answer"]), str(answer["rationale"]), list(answer["quotes"])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise CallFailedError("malformed", "The judge's answer is not the JSON asked for.") from None
    if chosen not in answers:
        raise CallFailedError("unusable", f"The judge answered {chosen[:40]!r}.")
    kept, dropped = verified_quotes(quotes, way.item.frame.texts)
    if dropped:
        said = f"{said} [{dropped} of {len(quotes)} quotes do not stand in the transcript and were dropped]"
    if way.reversed_scale:
        chosen = way.item.rubric.mirrored(chosen)
    return Reading({a: float(a == chosen) for a in answers}, 1.0, said, tuple(kept), dropped)
