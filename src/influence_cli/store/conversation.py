"""One conversation with everything that is stored of it, read whole or only what came since."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import orjson

from influence_cli.errors import InfluenceError
from influence_cli.schemas.records import (
    CallRecord,
    EpisodeKey,
    EpisodeRecord,
    JudgementRecord,
    MessageRecord,
    ScoreRecord,
)
from influence_cli.store.labels import LabelRecord, labels_of
from influence_cli.store.reader import RunReader
from influence_cli.store.rows import read_call, read_judgement, read_message

_SUMMARY = (
    "SELECT e.*, t.status, t.reason, t.state AS last_state, t.turns, t.mean_rating, t.final_rating, t.mean_veto,"
    " t.unusable, t.failure, t.detail FROM episode e JOIN trajectory t ON t.episode_id = e.id WHERE e.id = ?"
)


@dataclass(frozen=True)
class StoredConversation:
    """A conversation as it stands in the store; ``messages`` are without dropped ones, ``ids`` are their numbers."""

    episode_id: int
    record: EpisodeRecord
    status: str
    reason: str | None
    state: str | None
    turns: int
    mean_rating: float | None
    final_rating: float | None
    mean_veto: float | None
    unusable: int
    failure: str | None
    detail: str | None
    messages: tuple[MessageRecord, ...]
    judgements: tuple[JudgementRecord, ...] = ()
    scores: tuple[ScoreRecord, ...] = ()
    calls: tuple[CallRecord, ...] = ()
    labels: tuple[LabelRecord, ...] = field(default=())

    @property
    def title(self) -> str:
        """Which one it is, in one line."""
        key = self.record.key
        sample = f" #{key.sample}" if key.sample else ""
        return f"{key.environment}/{key.scenario}/{key.initial_state}{sample}"

    def judged(self, turn: int, role: str) -> JudgementRecord | None:
        """Return what ``role`` said of a turn."""
        return next((j for j in self.judgements if j.turn == turn and j.role == role), None)

    def reply_turns(self) -> list[int]:
        """Return the turns in which the agent replied, in order."""
        return sorted({m.turn for m in self.messages if m.speaker == "agent" and m.turn > 0})


def read_conversation(run: RunReader, episode_id: int) -> StoredConversation:
    """Return a conversation; InfluenceError if the run has none of that number."""
    found = run.rows(_SUMMARY, (episode_id,))
    if not found:
        raise InfluenceError(f"There is no conversation {episode_id} in {run.path}.")
    row = found[0]
    messages = run.rows("SELECT * FROM message WHERE episode_id = ? AND dropped = 0 ORDER BY id", (episode_id,))
    judgements = run.rows("SELECT * FROM judgement WHERE episode_id = ? ORDER BY turn, id", (episode_id,))
    scores = run.rows("SELECT * FROM score WHERE episode_id = ? ORDER BY turn, rubric, id", (episode_id,))
    calls = run.rows("SELECT * FROM call WHERE episode_id = ? ORDER BY id", (episode_id,))
    return StoredConversation(
        episode_id=episode_id,
        record=_record(row),
        status=row["status"],
        reason=row["reason"],
        state=row["last_state"],
        turns=row["turns"],
        mean_rating=row["mean_rating"],
        final_rating=row["final_rating"],
        mean_veto=row["mean_veto"],
        unusable=row["unusable"],
        failure=row["failure"],
        detail=row["detail"],
        messages=tuple(read_message(message) for message in messages),
        judgements=tuple(read_judgement(judgement) for judgement in judgements),
        scores=tuple(_score(score) for score in scores),
        calls=tuple(read_call(call) for call in calls),
        labels=tuple(labels_of(run, episode_id)),
    )


def fingerprint(run: RunReader, episode_id: int) -> tuple[int, ...]:
    """Return what changes whenever something is added to a conversation, from the ends of its indexes."""
    tables = ("message", "judgement", "call")
    highest = (f"(SELECT max(id) FROM {table} WHERE episode_id = :id)" for table in tables)  # noqa: S608
    sql = (
        f"SELECT {', '.join(highest)}, (SELECT count(*) FROM score WHERE episode_id = :id),"  # noqa: S608
        " (SELECT max(time) FROM label WHERE episode_id = :id), (SELECT count(*) FROM label WHERE episode_id = :id),"
        " (SELECT status = 'running' FROM trajectory WHERE episode_id = :id)"
    )
    row = run.rows(sql.replace(":id", str(int(episode_id))))[0]
    return tuple(value or 0 for value in row)


def _record(row: Any) -> EpisodeRecord:
    return EpisodeRecord(
        key=EpisodeKey(
            iteration=row["iteration"],
            environment=row["environment"],
            scenario=row["scenario"],
            initial_state=row["initial_state"],
            sample=row["sample"],
        ),
        population=row["population"],
        cue=row["cue"],
        split=row["split"],
        seed=row["seed"],
        profile=orjson.loads(row["profile"]),
    )


def _score(row: Any) -> ScoreRecord:
    return ScoreRecord(
        turn=row["turn"],
        rubric=row["rubric"],
        rubric_hash=row["rubric_hash"],
        judge=row["judge"],
        method=row["method"],
        value=row["value"],
        mass=row["mass"],
        usable=bool(row["usable"]),
        distribution=orjson.loads(row["distribution"]) if row["distribution"] else None,
        rationale=row["rationale"],
        quotes=tuple(orjson.loads(row["quotes"])) if row["quotes"] else (),
        failure=row["failure"],
    )
