"""Scores without a judge, of all conversations of a run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from influence_cli.schemas.records import ScoreRecord
from influence_cli.scoring.scorers import LexicalDiversity, Refusal, ReplyLength, Scorer, ToolTruth, VisitedStates

COMPUTED: Mapping[str, type[Scorer]] = {
    "reply-length": ReplyLength,
    "lexical-diversity": LexicalDiversity,
    "refusal": Refusal,
    "visited": VisitedStates,
    "tool-truth": ToolTruth,
}
_VERSION = "1"


class _Book(Protocol):
    def add_scores(self, scores: Sequence[tuple[int, ScoreRecord]]) -> None: ...

    def scored(self) -> set[tuple[int, int, str, str, str]]: ...


def compute_scores(trajectories: Iterable[tuple[int, Mapping[str, Any]]], book: _Book) -> int:
    """Store what the scorers find in each trajectory and is not stored yet; return how many scores are new."""
    known = book.scored()
    count = 0
    for number, trajectory in trajectories:
        fresh = [
            (number, record)
            for name, kind in COMPUTED.items()
            for record in _records(name, kind(), trajectory)
            if (number, record.turn, record.rubric_hash, record.judge, record.method) not in known
        ]
        if fresh:
            book.add_scores(fresh)
            count += len(fresh)
    return count


def _records(scorer: str, made: Scorer, trajectory: Mapping[str, Any]) -> Iterable[ScoreRecord]:
    for name, turn, value in made.scores(trajectory):
        yield ScoreRecord(
            turn=turn, rubric=name, rubric_hash=f"{name}/{_VERSION}", judge=scorer, method="computed", value=value
        )
