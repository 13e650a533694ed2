"""What Inspect holds of a sample as the document ``influence.trajectory/1``, for judges that read one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from inspect_ai.model import ChatMessage as InspectMessage
from inspect_ai.model import ChatMessageAssistant, ChatMessageTool
from inspect_ai.solver import TaskState

from influence_cli.api import (
    EpisodeKey,
    EpisodeRecord,
    JudgementRecord,
    MessageRecord,
    TrajectoryEnd,
    trajectory_document,
)
from influence_inspect.messages import OURS, tool_calls

_SPEAKERS: dict[str, Any] = {"assistant": "agent", "user": "user", "tool": "tool", "system": "system"}
_ELSEWHERE = "inspect"
"""The environment and state of a conversation that another task had."""


def trajectory_of(state: TaskState) -> dict[str, Any]:
    """Return the conversation of a sample: ours as it was had, another task's by its messages."""
    kept = state.store.get(OURS)
    if kept is None:
        return _foreign(state)
    messages = [_own_message(message) for message in state.messages]
    return trajectory_document(
        EpisodeRecord.model_validate(kept["episode"]),
        messages,
        [JudgementRecord.model_validate(each) for each in kept["judgements"]],
        TrajectoryEnd.model_validate(kept["end"]) if kept["end"] else None,
    )


def _own_message(message: InspectMessage) -> MessageRecord:
    return MessageRecord(**(message.metadata or {})[OURS], **_said(message))


def _foreign(state: TaskState) -> dict[str, Any]:
    messages = list(_foreign_messages(state.messages))
    turns = max((message.turn for message in messages), default=0)
    key = EpisodeKey(environment=_ELSEWHERE, scenario=_ELSEWHERE, initial_state=str(state.sample_id))
    end = TrajectoryEnd(status="complete", reason="turn_limit", state=_ELSEWHERE, turns=turns)
    return trajectory_document(EpisodeRecord(key=key, seed=0), messages, (), end)


def _foreign_messages(messages: Sequence[InspectMessage]) -> Iterator[MessageRecord]:
    """Yield the messages; a turn ends with a reply that calls no tool."""
    turn, begun = 0, False
    for message in messages:
        said = _said(message)
        own = isinstance(message, ChatMessageAssistant) and message.source != "input"
        if own and not begun:
            turn, begun = turn + 1, True
        if own and not said["tool_calls"]:
            begun = False
        source: Any = "model" if own else "tool" if message.role == "tool" else "scenario"
        yield MessageRecord(turn=turn, speaker=_SPEAKERS[message.role], state=_ELSEWHERE, source=source, **said)


def _said(message: InspectMessage) -> dict[str, Any]:
    return {
        "text": message.text,
        "tool_calls": tool_calls(message.tool_calls) if isinstance(message, ChatMessageAssistant) else (),
        "tool_call_id": message.tool_call_id if isinstance(message, ChatMessageTool) else None,
    }
