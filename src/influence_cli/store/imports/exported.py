"""Our own exports: one ``influence.trajectory/1`` a line (JSON lines) or a row (Parquet)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from influence_cli.schemas.records import (
    EpisodeKey,
    EpisodeRecord,
    JudgementRecord,
    MessageRecord,
    TrajectoryEnd,
)
from influence_cli.store.imports.conversation import IMPORTED, Conversation, Refused

_FIELDS = {"environment", "scenario", "initial_state", "sample", "messages", "judgements", "status"}


def is_exported(row: Mapping[str, Any]) -> bool:
    """Return whether a row is a trajectory as this program exports it."""
    return set(row) >= _FIELDS


def exported_conversations(rows: Iterable[Mapping[str, Any]]) -> Iterator[Conversation | Refused]:
    """Yield the conversations of an export; those that had not ended are refused, having no end to store."""
    for number, row in enumerate(rows, 1):
        try:
            if row["status"] == "running":
                yield Refused(f"row {number}", "the conversation had not ended")
                continue
            yield _conversation(row)
        except ValidationError as error:
            first = error.errors()[0]
            yield Refused(f"row {number}", f"{'.'.join(map(str, first['loc']))}: {first['msg']}")
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            yield Refused(f"row {number}", f"{type(error).__name__}: {error}".split("\n", 1)[0])


def _conversation(row: Mapping[str, Any]) -> Conversation:
    profile = row.get("profile") or {}
    key = {name: row[name] for name in EpisodeKey.model_fields}
    record = EpisodeRecord(
        key=EpisodeKey(**key),
        profile=json.loads(profile) if isinstance(profile, str) else profile,
        **{name: row[name] for name in ("population", "cue", "split", "seed")},
    )
    end = {name: row[name] for name in TrajectoryEnd.model_fields}
    return Conversation(
        record=record,
        messages=tuple(_message(message) for message in row["messages"]),
        end=TrajectoryEnd(**end),
        judgements=tuple(_judgements(row["judgements"])),
    )


def _message(message: Mapping[str, Any]) -> MessageRecord:
    calls = message["tool_calls"] or ()
    return MessageRecord(**{**message, "tool_calls": json.loads(calls) if isinstance(calls, str) else calls})


def _judgements(entries: Iterable[Mapping[str, Any]]) -> Iterator[JudgementRecord]:
    """Yield judgements, from a list by turn and role (JSON) or from a flat one (Parquet)."""
    for entry in entries:
        turn = entry["turn"]
        roles = {entry["role"]: entry} if "role" in entry else {k: v for k, v in entry.items() if k != "turn"}
        for role, judgement in roles.items():
            if not isinstance(judgement, Mapping):
                raise TypeError(f"judgements.{role}: {type(judgement).__name__} where an object belongs")
            facts = {name: value for name, value in judgement.items() if name not in ("turn", "role")}
            yield JudgementRecord(turn=turn, role=role, state=IMPORTED, **facts)
