"""Scoring through a provider's batch API: submitted, waited for, collected, resumable at every step.

Invariant: each step is kept in the run before the next is taken, and the provider's own lists are looked through for the
batch's token before anything is sent, so that a kill at any moment submits nothing twice.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import groupby
from typing import Any

from influence_cli.backends.batches import BatchAnswer, BatchBackend, BatchProgress
from influence_cli.errors import CallFailedError, InfluenceError
from influence_cli.schemas.records import ScoreRecord
from influence_cli.schemas.requests import Usage
from influence_cli.scoring.judging import Answer, Asking, Reading, combined_score, facts_of
from influence_cli.scoring.questions import ScoreKey
from influence_cli.scoring.running import ItemsOf, Numbered, ScoreBook, ScoreTally, Task, keep, missing
from influence_cli.simulation.calls import call_record
from influence_cli.simulation.models import RoleModel
from influence_cli.store.batches import BatchFolder, BatchRecord

MOST_REQUESTS = 50_000
"""Of one batch: OpenAI's limit."""
MOST_BYTES = 150 * 2**20
"""Of one batch's file: below OpenAI's limit of 200 MB."""
_STORED_AT_ONCE = 500
_STOP_POLL = 0.05


@dataclass
class BatchReport:
    """What was sent and what is still away."""

    submitted: int = 0
    collected: int = 0
    waiting: dict[str, BatchProgress] = field(default_factory=dict)


class BatchScoring:
    """The batches of one run and how its models are asked."""

    def __init__(
        self, models: Sequence[RoleModel], asking: Asking, book: ScoreBook, folder: BatchFolder, tally: ScoreTally
    ) -> None:
        if asking.method != "distribution":
            raise InfluenceError(
                f"--batch asks for distributions, not for {asking.method}.", hint="Leave out --method."
            )
        for model in models:
            if not isinstance(model.backend, BatchBackend):
                raise InfluenceError(f"{model.name} takes no batches.", hint="Leave out --batch, or name openai:MODEL.")
        self._models = {str(model.name): model for model in models}
        self._asking = asking
        self._book = book
        self._folder = folder
        self._tally = tally
        self.report = BatchReport()

    async def run(
        self,
        trajectories: Iterable[Numbered],
        items_of: ItemsOf,
        *,
        wait: bool,
        every: float,
        told: Callable[[BatchReport], None] = lambda _: None,
    ) -> BatchReport:
        """Send what is missing and not away already, then collect what is done; with ``wait``, until nothing is away."""
        for record in self._folder.open_batches():
            await self._send(record)
        self._plan(trajectories, items_of)
        for record in self._folder.open_batches():
            await self._send(record)
        while True:
            for record in self._folder.open_batches():
                await self._collect(record)
            told(self.report)
            if not self.report.waiting or not wait or self._tally.stop is not None:
                return self.report
            await self._wait(every)

    async def _wait(self, seconds: float) -> None:
        """Wait so long, or until somebody asks to stop."""
        ends = time.monotonic() + seconds
        while self._tally.stop is None and (left := ends - time.monotonic()) > 0.0:  # noqa: ASYNC110
            await asyncio.sleep(min(left, _STOP_POLL))

    def _plan(self, trajectories: Iterable[Numbered], items_of: ItemsOf) -> None:
        """Write down new batches for what is neither scored nor away."""
        known = self._book.scored() | self._away()
        tasks = [task for group in missing(trajectories, items_of, self._asking, known, self._tally) for task in group]
        tasks.sort(key=lambda task: str(task[1].name))
        for name, group in groupby(tasks, key=lambda task: str(task[1].name)):
            for keys, lines in _parts(self._requests(group, self._models[name])):
                token = sha256(b"\n".join(lines)).hexdigest()[:20]
                number = len(self._folder.all_batches())
                record = BatchRecord(token=f"{number:04d}-{token}", model=name, requests=len(lines))
                self._folder.plan(record, lines, keys)

    def _away(self) -> set[ScoreKey]:
        return {
            _key(entry["episode"], entry["facts"])
            for record in self._folder.open_batches()
            for entry in self._folder.keys(record)
        }

    def _requests(self, tasks: Iterable[Task], model: RoleModel) -> Iterator[tuple[list[dict[str, Any]], list[bytes]]]:
        """Yield keys and lines of each question, all of its ways together."""
        backend = _batching(model)
        for item, _ in tasks:
            keys, lines = [], []
            facts = facts_of(item, model, self._asking)
            for number, way in enumerate(self._asking.ways(item)):
                key = f"{item.episode_id}-{item.turn}-{item.hashed}-{number}"
                mirrored = item.rubric.mirrored if way.reversed_scale else str
                said = {answer: mirrored(answer) for answer in item.rubric.choices}
                keys.append(
                    {"key": key, "episode": item.episode_id, "role": item.frame.role, "facts": facts, "said": said}
                )
                lines.append(backend.batch_line(key, way.request(model)))
            yield keys, lines

    async def _send(self, record: BatchRecord) -> None:
        """Take the steps that are not done yet, up to a batch that the provider works on."""
        backend = _batching(self._model(record))
        if record.stage == "planned":
            file = await _told(backend.upload_batch(record.token, self._folder.lines(record)))
            record = self._folder.update(record.model_copy(update={"file": file, "stage": "uploaded"}))
        if record.stage == "uploaded":
            assert record.file is not None
            batch = await _told(backend.start_batch(record.token, record.file))
            self._folder.update(record.model_copy(update={"batch": batch, "stage": "started"}))
            self.report.submitted += record.requests

    async def _collect(self, record: BatchRecord) -> None:
        assert record.batch is not None
        model = self._model(record)
        backend = _batching(model)
        progress = await _told(backend.look_at_batch(record.batch))
        if progress.state == "waiting":
            self.report.waiting[record.batch] = progress
            return
        self.report.waiting.pop(record.batch, None)
        entries = self._folder.keys(record)
        choices = {entry["key"]: tuple(entry["said"]) for entry in entries}
        answers = await _told(backend.collect_batch(record.batch, choices))
        self._store(entries, answers, model, progress)
        self._folder.update(record.model_copy(update={"stage": "collected"}))
        self.report.collected += len(answers)

    def _store(
        self,
        entries: Sequence[Mapping[str, Any]],
        answers: Mapping[str, BatchAnswer],
        model: RoleModel,
        progress: BatchProgress,
    ) -> None:
        """Store every score of a batch, failed ones as such; those stored before a kill are passed over."""
        known = self._book.scored()
        ready: list[Answer] = []
        for _, group in groupby(entries, key=lambda entry: _key(entry["episode"], entry["facts"])):
            ways = list(group)
            if _key(ways[0]["episode"], ways[0]["facts"]) not in known:
                ready.append(_scored(ways, answers, model, progress))
        for start in range(0, len(ready), _STORED_AT_ONCE):
            keep(self._book, ready[start : start + _STORED_AT_ONCE], self._tally)

    def _model(self, record: BatchRecord) -> RoleModel:
        model = self._models.get(record.model)
        if model is None:
            raise InfluenceError(
                f"The batch {record.token} asks {record.model}, which is not among the judges named.",
                hint=f"Collect it first: --judge {record.model} --batch.",
            )
        return model


def _scored(
    ways: Sequence[Mapping[str, Any]], answers: Mapping[str, BatchAnswer], model: RoleModel, progress: BatchProgress
) -> Answer:
    facts, episode_id = ways[0]["facts"], ways[0]["episode"]
    gone = CallFailedError("server_error", f"The batch gave no answer ({progress.detail or 'no reason given'}).")
    calls, readings = [], []
    failure: CallFailedError | None = None
    for way in ways:
        answer = answers.get(way["key"], gone)
        if isinstance(answer, CallFailedError):
            failure = failure or answer
            calls.append(call_record(facts["turn"], way["role"], model, Usage(requests=1), answer.kind, str(answer)))
            continue
        calls.append(call_record(facts["turn"], way["role"], model, answer.usage))
        shares = {mine: answer.probability(said) for mine, said in way["said"].items()}
        readings.append(Reading(shares, answer.mass))
    if failure is not None:
        return Answer(episode_id, ScoreRecord(**facts, usable=False, failure=failure.kind), calls)
    return Answer(episode_id, combined_score(facts, readings, model.minimum_mass), calls)


def _key(episode_id: int, facts: Mapping[str, Any]) -> ScoreKey:
    return (episode_id, facts["turn"], facts["rubric_hash"], facts["judge"], facts["method"])


def _parts(
    requests: Iterable[tuple[list[dict[str, Any]], list[bytes]]],
) -> Iterator[tuple[list[dict[str, Any]], list[bytes]]]:
    """Yield keys and lines of as few batches as the limits allow; a question's ways stay together."""
    keys: list[dict[str, Any]] = []
    lines: list[bytes] = []
    size = 0
    for more_keys, more in requests:
        added = sum(len(line) + 1 for line in more)
        if lines and (len(lines) + len(more) > MOST_REQUESTS or size + added > MOST_BYTES):
            yield keys, lines
            keys, lines, size = [], [], 0
        keys += more_keys
        lines += more
        size += added
    if lines:
        yield keys, lines


def _batching(model: RoleModel) -> BatchBackend:
    backend = model.backend
    assert isinstance(backend, BatchBackend)
    return backend


async def _told(step: Any) -> Any:
    """Return what a step gives; a failed call is the user's to mend: the batch is taken up again by the same command."""
    try:
        return await step
    except CallFailedError as error:
        raise InfluenceError(str(error), hint="Nothing is lost: the same command goes on from here.") from None
