"""Scoring one conversation that is in memory, with the questions and the machinery of a run's scoring."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from influence_cli.schemas.records import CallRecord, ScoreRecord
from influence_cli.scoring.judging import Asking
from influence_cli.scoring.plan import Plan
from influence_cli.scoring.questions import ScoreKey
from influence_cli.scoring.running import ScoreTally, ask_all

_ONLY = 0


class KeptScores:
    """The scores of one conversation, with the calls that they took."""

    def __init__(self) -> None:
        self.scores: list[ScoreRecord] = []
        self.calls: list[CallRecord] = []

    def add_scores(
        self, scores: Sequence[tuple[int, ScoreRecord]], calls: Sequence[tuple[int, CallRecord]] = ()
    ) -> None:
        """Keep scores and calls."""
        self.scores += [score for _, score in scores]
        self.calls += [call for _, call in calls]

    def scored(self) -> set[ScoreKey]:
        """Return nothing: no conversation is scored twice."""
        return set()


async def score_conversation(trajectory: Mapping[str, Any], plan: Plan, asking: Asking) -> KeptScores:
    """Return what the questions of ``plan`` give for a document ``influence.trajectory/1``; failures are among the scores.

    Raises InfluenceError for a refused key or an unknown model.
    """
    kept = KeptScores()
    await ask_all([(_ONLY, trajectory)], plan.items, asking, kept, ScoreTally(), concurrency=1)
    return kept
