"""Scoring a run: only what is missing, several judges, every failure counted.

Invariant: scores are stored a conversation at a time, as they come; a stop loses what is in flight and nothing else.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from influence_cli.errors import InfluenceError
from influence_cli.schemas.records import ScoreRecord
from influence_cli.schemas.rubrics import Rubric
from influence_cli.scoring.judging import Answer, Asking, Item, items_of, judge
from influence_cli.simulation.models import RoleModel
from influence_cli.simulation.tally import FATAL_KINDS

Numbered = tuple[int, Mapping[str, Any]]
"""A trajectory and its number in the store."""

RubricsOf = Callable[[Mapping[str, Any]], Sequence[Rubric]]
"""Which rubrics a trajectory is judged by."""


class ScoreBook(Protocol):
    """Where scores go: what scoring needs of the store's writer."""

    def add_scores(self, scores: Sequence[tuple[int, ScoreRecord]]) -> None:
        """Store scores by episode."""
        ...

    def scored(self) -> set[tuple[int, int, str, str, str]]:
        """Return what is scored already."""
        ...


@dataclass
class ScoreTally:
    """What came of one call of ``influence score``."""

    total: int = 0
    skipped: int = 0
    done: int = 0
    unusable: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    tokens: int = 0
    cached_tokens: int = 0
    cost: float = 0.0
    sums: dict[str, list[float]] = field(default_factory=dict)

    def add(self, score: ScoreRecord) -> None:
        """Count a score."""
        self.done += 1
        if score.failure is not None:
            self.failed[score.failure] += 1
        elif not score.usable:
            self.unusable += 1
        elif score.value is not None:
            entry = self.sums.setdefault(score.rubric, [0.0, 0.0])
            entry[0] += score.value
            entry[1] += 1


async def score_trajectories(
    trajectories: Iterable[Numbered],
    rubrics_of: RubricsOf,
    judges: Sequence[RoleModel],
    asking: Asking,
    book: ScoreBook,
    *,
    concurrency: int,
    told: Callable[[ScoreTally], None] = lambda _: None,
) -> ScoreTally:
    """Ask every judge every rubric about each trajectory that has no such score yet; return the tally.

    Raises InfluenceError for a refused key or an unknown model; other failures are recorded and counted.
    """
    tally = ScoreTally()
    known = book.scored()
    waiting = _missing(trajectories, rubrics_of, judges, asking, known, tally)

    async def work() -> None:
        for model, items in waiting:
            answers = await asyncio.gather(*(judge(item, model, asking) for item in items))
            _keep(book, items, answers, model, tally)
            told(tally)

    workers = [asyncio.create_task(work()) for _ in range(concurrency)]
    try:
        await asyncio.gather(*workers)
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
    return tally


def _missing(
    trajectories: Iterable[Numbered],
    rubrics_of: RubricsOf,
    judges: Sequence[RoleModel],
    asking: Asking,
    known: set[tuple[int, int, str, str, str]],
    tally: ScoreTally,
) -> Iterator[tuple[RoleModel, list[Item]]]:
    """Yield what is to be judged, a conversation and judge at a time, so that its rubrics share one reading."""
    for number, trajectory in trajectories:
        items = items_of(number, trajectory, rubrics_of(trajectory))
        for model in judges:
            missing = [item for item in items if item.key(str(model.name), asking) not in known]
            tally.total += len(items)
            tally.skipped += len(items) - len(missing)
            if missing:
                yield model, missing


def _keep(
    book: ScoreBook, items: Sequence[Item], answers: Sequence[Answer], model: RoleModel, tally: ScoreTally
) -> None:
    book.add_scores([(item.episode_id, score) for item, (score, _) in zip(items, answers, strict=True)])
    for score, usage in answers:
        tally.add(score)
        tally.tokens += usage.prompt_tokens + usage.completion_tokens
        tally.cached_tokens += usage.cached_tokens
        tally.cost += model.cost(usage) or 0.0
    fatal = next((score for score, _ in answers if score.failure in FATAL_KINDS), None)
    if fatal is not None:
        raise InfluenceError(
            f"{model.name} cannot be asked: {fatal.failure}.", hint="Check the model's name, its key and its account."
        )
