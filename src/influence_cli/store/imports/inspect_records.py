"""What this program itself wrote into a sample of Inspect's (schema ``influence.inspect/1``): the conversation as it was.

The sample's store holds who talked, what was judged and what it took; a message's metadata where it stands; a score's
metadata the records behind its number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from influence_cli.schemas.messages import Speaker, ToolCall
from influence_cli.schemas.records import (
    CallRecord,
    EpisodeKey,
    EpisodeRecord,
    JudgementRecord,
    MessageRecord,
    ScoreRecord,
    TrajectoryEnd,
)
from influence_cli.store.imports.conversation import Conversation

OURS = "influence"
SCHEMA = "influence.inspect/1"

Resolve = Callable[[str], str]
"""Puts back a text that the log keeps elsewhere."""


def is_ours(sample: Mapping[str, Any]) -> bool:
    """Return whether a sample holds a conversation of ours."""
    kept = (sample.get("store") or {}).get(OURS)
    return isinstance(kept, Mapping) and kept.get("schema") == SCHEMA


def own_conversation(
    sample: Mapping[str, Any],
    environment: str | None,
    resolve: Resolve,
    text_of: Callable[[Any], str],
    calls_of: Callable[[Any], Iterator[ToolCall]],
    speakers: Mapping[str, Speaker],
) -> Conversation:
    """Return the conversation; ValueError if it had not ended. ``environment`` renames its environment."""
    kept = _resolved(sample["store"][OURS], resolve)
    if kept["end"] is None:
        raise ValueError("the conversation had not ended")
    record = EpisodeRecord.model_validate(kept["episode"])
    if environment is not None:
        key = EpisodeKey(**{**record.key.model_dump(), "environment": environment})
        record = record.model_copy(update={"key": key})
    return Conversation(
        record=record,
        messages=tuple(
            MessageRecord(
                **_resolved(message["metadata"][OURS], resolve) | {"speaker": speakers[message["role"]]},
                text=resolve(text_of(message.get("content", ""))),
                tool_calls=tuple(calls_of(message.get("tool_calls") or ())),
                tool_call_id=message.get("tool_call_id"),
            )
            for message in sample["messages"]
        ),
        end=TrajectoryEnd.model_validate(kept["end"]),
        judgements=tuple(JudgementRecord.model_validate(each) for each in kept["judgements"]),
        calls=tuple(CallRecord.model_validate(each) for each in kept["calls"]),
        scores=tuple(_scores(sample.get("scores") or {}, resolve)),
    )


def own_score(score: Any) -> bool:
    """Return whether a score's metadata holds records of ours, or says that the conversation holds them."""
    metadata = score.get("metadata") if isinstance(score, Mapping) else None
    return isinstance(metadata, Mapping) and isinstance(metadata.get(OURS), list)


def _scores(scores: Mapping[str, Any], resolve: Resolve) -> Iterator[ScoreRecord]:
    for score in scores.values():
        if own_score(score):
            for each in score["metadata"][OURS]:
                yield ScoreRecord.model_validate(_resolved(each, resolve))


def _resolved(value: Any, resolve: Resolve) -> Any:
    if isinstance(value, str):
        return resolve(value)
    if isinstance(value, Mapping):
        return {key: _resolved(each, resolve) for key, each in value.items()}
    return [_resolved(each, resolve) for each in value] if isinstance(value, list) else value
