"""Scores without a judge, of all conversations of a run.

Invariant: what a scorer does wrong on one conversation is recorded as that scorer's failure there, and stops nobody.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from influence_cli.environments.environment import Environment
from influence_cli.schemas.records import WHOLE, ScoreRecord
from influence_cli.scoring.running import Numbered, ScoreBook
from influence_cli.scoring.scorers import Scorer

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class NamedScorer:
    """A scorer as it was asked for; ``identity`` stands for its version and settings."""

    name: str
    scorer: Scorer
    identity: str


@dataclass
class ComputedTally:
    """How many conversations were looked at, how many scores are new, and how often each scorer failed."""

    conversations: int = 0
    new: int = 0
    failed: Counter[str] = field(default_factory=Counter)


def compute_scores(
    trajectories: Iterable[Numbered],
    scorers: Iterable[NamedScorer],
    environments: Mapping[str, Environment],
    book: ScoreBook,
) -> ComputedTally:
    """Store what the scorers find in each trajectory and is not stored yet."""
    known = book.scored()
    tally = ComputedTally()
    made = list(scorers)
    for number, trajectory in trajectories:
        tally.conversations += 1
        fresh = []
        for named in made:
            for record in _records(named, trajectory, environments.get(trajectory["environment"])):
                if (number, record.turn, record.rubric_hash, record.judge, record.method) not in known:
                    fresh.append((number, record))
                    tally.failed[named.name] += record.failure is not None
        if fresh:
            book.add_scores(fresh)
            tally.new += len(fresh)
    tally.failed += Counter()
    return tally


def _records(named: NamedScorer, trajectory: Mapping[str, Any], environment: Environment | None) -> list[ScoreRecord]:
    def record(name: str, turn: int, **result: Any) -> ScoreRecord:
        hashed = f"{name}/{named.identity}"
        return ScoreRecord(turn=turn, rubric=name, rubric_hash=hashed, judge=named.name, method="computed", **result)

    try:
        found = [
            (str(name), int(turn), float(value)) for name, turn, value in named.scorer.scores(trajectory, environment)
        ]
        if not all(math.isfinite(value) for _, _, value in found):
            raise ValueError("a value is not finite")
        return [record(name, turn, value=value) for name, turn, value in found]
    except Exception:  # noqa: BLE001 - a scorer may come from anybody
        _log.exception("The scorer %s failed", named.name)
        return [record(named.name, WHOLE, usable=False, failure="internal")]
