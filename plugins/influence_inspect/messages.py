"""Messages of ours as Inspect's, in both directions of a conversation.

Invariant: what a stored message knows beyond Inspect's fields stands in ``metadata["influence"]``, and only there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from inspect_ai.model import (
    ChatMessage as InspectMessage,
)
from inspect_ai.model import (
    ChatMessageAssistant,
    ChatMessageSystem,
    ChatMessageTool,
    ChatMessageUser,
)
from inspect_ai.tool import ToolCall as InspectToolCall

from influence_cli.api import ChatMessage, MessageRecord, ToolCall

OURS = "influence"
"""The key of our own in Inspect's metadata and stores."""
_BEYOND = ("turn", "speaker", "state", "source", "finish_reason", "outcome")


def prompt_messages(messages: Iterable[ChatMessage]) -> list[InspectMessage]:
    """Return a prompt as Inspect's providers take it."""
    called: dict[str, str] = {}
    return [_message(m.role, m.content, m.tool_calls, m.tool_call_id, called) for m in messages]


def stored_messages(messages: Iterable[MessageRecord], name: str) -> list[InspectMessage]:
    """Return what was said as a log shows it; identifiers begin with ``name``."""
    called: dict[str, str] = {}
    roles = {"agent": "assistant", "user": "user", "tool": "tool", "system": "system"}
    found = []
    for place, message in enumerate(messages):
        made = _message(roles[message.speaker], message.text, message.tool_calls, message.tool_call_id, called)
        made.id = f"{name}-{place}"
        if message.source != "tool":
            made.source = "generate" if message.source == "model" else "input"
        made.metadata = {OURS: message.model_dump(mode="json", include=set(_BEYOND))}
        found.append(made)
    return found


def tool_calls(calls: Iterable[InspectToolCall] | None) -> tuple[ToolCall, ...]:
    """Return the calls of a reply."""
    return tuple(ToolCall(id=call.id, name=call.function, arguments=call.arguments) for call in calls or ())


def _message(
    role: str, text: str, calls: Sequence[ToolCall], call_id: str | None, called: dict[str, str]
) -> InspectMessage:
    """Return one message; ``called`` remembers which tool each call named, for the results that follow."""
    if role == "assistant":
        called.update((call.id, call.name) for call in calls)
        made = [InspectToolCall(id=c.id, function=c.name, arguments=dict(c.arguments)) for c in calls]
        return ChatMessageAssistant(content=text, tool_calls=made or None)
    if role == "tool":
        return ChatMessageTool(content=text, tool_call_id=call_id, function=called.get(call_id or ""))
    return ChatMessageSystem(content=text) if role == "system" else ChatMessageUser(content=text)
