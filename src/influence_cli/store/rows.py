"""Between records and rows.

Text is stored as UTF-8; a lone surrogate, which UTF-8 cannot hold, is stored as U+FFFD.
"""

from __future__ import annotations

import re
import sqlite3
from typing import Any

import orjson

from influence_cli.schemas.messages import ToolCall
from influence_cli.schemas.records import CallRecord, EpisodeRecord, JudgementRecord, MessageRecord, ScoreRecord

INSERT_EPISODE = (
    "INSERT INTO episode (iteration, environment, scenario, initial_state, sample, population, cue, split, seed,"
    " profile) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
)
INSERT_MESSAGE = (
    "INSERT INTO message (episode_id, turn, speaker, text, state, source, finish_reason, tool_calls, tool_call_id,"
    " outcome) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
INSERT_JUDGEMENT = (
    "INSERT INTO judgement (episode_id, turn, role, state, choices, probabilities, mass, method, draws, expected,"
    " outcome, usable) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
INSERT_CALL = (
    "INSERT INTO call (episode_id, turn, role, ordinal, model, prompt_tokens, cached_tokens, completion_tokens,"
    " requests, latency, cost, cached, error, detail, ended) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
INSERT_SCORE = (
    "INSERT OR REPLACE INTO score (episode_id, turn, rubric, rubric_hash, judge, method, value, mass, usable,"
    " distribution, rationale, quotes, failure, ended) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_PRECISION = 9
_SURROGATE = re.compile("[\ud800-\udfff]")


def safe(text: str) -> str:
    """Return ``text`` as UTF-8 can hold it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return _SURROGATE.sub("\ufffd", text)
    return text


def episode_row(record: EpisodeRecord) -> tuple[Any, ...]:
    """Return the values of :data:`INSERT_EPISODE`."""
    key = record.key
    return (
        key.iteration,
        key.environment,
        key.scenario,
        key.initial_state,
        key.sample,
        record.population,
        record.cue,
        record.split,
        record.seed,
        orjson.dumps(record.profile).decode(),
    )


def message_row(episode_id: int, message: MessageRecord) -> tuple[Any, ...]:
    """Return the values of :data:`INSERT_MESSAGE`."""
    calls = message.tool_calls
    return (
        episode_id,
        message.turn,
        message.speaker,
        safe(message.text),
        message.state,
        message.source,
        message.finish_reason,
        safe(orjson.dumps([call.model_dump() for call in calls]).decode()) if calls else None,
        message.tool_call_id,
        message.outcome,
    )


def judgement_row(episode_id: int, judgement: JudgementRecord) -> tuple[Any, ...]:
    """Return the values of :data:`INSERT_JUDGEMENT`."""
    return (
        episode_id,
        judgement.turn,
        judgement.role,
        judgement.state,
        orjson.dumps(judgement.choices).decode(),
        orjson.dumps(judgement.probabilities).decode(),
        judgement.mass,
        judgement.method,
        judgement.draws,
        judgement.expected,
        judgement.outcome,
        int(judgement.usable),
    )


def call_row(episode_id: int, call: CallRecord, ended: float) -> tuple[Any, ...]:
    """Return the values of :data:`INSERT_CALL`."""
    return (
        episode_id,
        call.turn,
        call.role,
        call.ordinal,
        call.model,
        call.prompt_tokens,
        call.cached_tokens,
        call.completion_tokens,
        call.requests,
        round(call.latency, _PRECISION),
        call.cost,
        int(call.cached),
        call.error,
        safe(call.detail) if call.detail else None,
        ended,
    )


def score_row(episode_id: int, score: ScoreRecord, ended: float) -> tuple[Any, ...]:
    """Return the values of :data:`INSERT_SCORE`."""
    return (
        episode_id,
        score.turn,
        score.rubric,
        score.rubric_hash,
        score.judge,
        score.method,
        score.value,
        score.mass,
        int(score.usable),
        orjson.dumps(score.distribution).decode() if score.distribution else None,
        safe(score.rationale) if score.rationale else None,
        safe(orjson.dumps(score.quotes).decode()) if score.quotes else None,
        score.failure,
        ended,
    )


def read_message(row: sqlite3.Row) -> MessageRecord:
    """Return the record of a row of ``message``."""
    calls = orjson.loads(row["tool_calls"]) if row["tool_calls"] else ()
    return MessageRecord(
        turn=row["turn"],
        speaker=row["speaker"],
        text=row["text"],
        state=row["state"],
        source=row["source"],
        finish_reason=row["finish_reason"],
        tool_calls=tuple(ToolCall(**call) for call in calls),
        tool_call_id=row["tool_call_id"],
        outcome=row["outcome"],
    )


def read_judgement(row: sqlite3.Row) -> JudgementRecord:
    """Return the record of a row of ``judgement``."""
    return JudgementRecord(
        turn=row["turn"],
        role=row["role"],
        state=row["state"],
        choices=tuple(orjson.loads(row["choices"])),
        probabilities=tuple(orjson.loads(row["probabilities"])),
        mass=row["mass"],
        method=row["method"],
        draws=row["draws"],
        expected=row["expected"],
        outcome=row["outcome"],
        usable=bool(row["usable"]),
    )


def read_call(row: sqlite3.Row) -> CallRecord:
    """Return the record of a row of ``call``."""
    names = ("turn", "role", "ordinal", "model", "prompt_tokens", "cached_tokens", "completion_tokens", "requests")
    more = ("latency", "cost", "error", "detail")
    return CallRecord(**{name: row[name] for name in (*names, *more)}, cached=bool(row["cached"]))
