"""What every format is read into, and how it is stored."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from influence_cli.schemas.records import (
    CallRecord,
    EpisodeRecord,
    JudgementRecord,
    MessageRecord,
    ScoreRecord,
    TrajectoryEnd,
)
from influence_cli.store.writer import RunWriter

IMPORTED = "imported"
"""The judge of scores, and the state of messages, of which the file names none."""


@dataclass(frozen=True)
class Conversation:
    """One finished conversation, as the run stores it."""

    record: EpisodeRecord
    messages: tuple[MessageRecord, ...]
    end: TrajectoryEnd
    judgements: tuple[JudgementRecord, ...] = ()
    calls: tuple[CallRecord, ...] = ()
    scores: tuple[ScoreRecord, ...] = ()


@dataclass(frozen=True)
class Refused:
    """An entry of the file that is no conversation, and why."""

    where: str
    reason: str


@dataclass
class ImportReport:
    """What was read: new conversations, those that were there already, and what had no place."""

    conversations: int = 0
    known: int = 0
    failed: int = 0
    scores: int = 0
    metrics: list[str] = field(default_factory=list)
    unplaced: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        """Entries that were read, refused ones included."""
        return self.conversations + self.known + len(self.refused)


def store_conversations(found: Iterable[Conversation | Refused], writer: RunWriter, report: ImportReport) -> None:
    """Store what is not stored yet, each conversation whole, and count it all in ``report``."""
    metrics = dict.fromkeys(report.metrics)
    for each in found:
        if isinstance(each, Refused):
            report.refused.append(f"{each.where}: {each.reason}"[:200])
            continue
        try:
            new = writer.add_conversation(
                each.record, each.messages, each.judgements, each.calls, each.scores, each.end
            )
        except (TypeError, ValueError, OverflowError) as error:  # numbers beyond 64 bits, halves of surrogate pairs
            key = each.record.key
            report.refused.append(f"{key.scenario}/{key.initial_state}: it cannot be stored: {error}"[:200])
            continue
        if not new:
            report.known += 1
            continue
        report.conversations += 1
        report.failed += each.end.status == "failed"
        report.scores += len(each.scores)
        metrics.update(dict.fromkeys(score.rubric for score in each.scores))
    report.metrics = list(metrics)
