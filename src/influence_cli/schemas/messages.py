"""What is said: to a model (:class:`ChatMessage`) and in a conversation (:class:`Message`)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, JsonValue

from influence_cli.schemas.frozen import Frozen

Role = Literal["agent", "user", "preference", "transition", "veto", "judge", "probe"]
"""Who speaks to a model."""

ROLES: tuple[Role, ...] = ("agent", "user", "preference", "transition", "veto", "judge", "probe")

Speaker = Literal["agent", "user", "tool", "system"]
"""Who speaks in a conversation."""


class ToolCall(Frozen):
    """A call of a tool, as the agent made it."""

    id: str = Field(description="The identifier that the tool's result refers to.")
    name: str = Field(description="The tool's name.")
    arguments: dict[str, JsonValue] = Field(default_factory=dict, description="Arguments by name.")


class ChatMessage(Frozen):
    """One message of a prompt, in the roles that chat models know."""

    role: Literal["system", "user", "assistant", "tool"] = Field(description="Who speaks, as the model sees it.")
    content: str = Field(description="The text.")
    tool_calls: tuple[ToolCall, ...] = Field(default=(), description="Calls made by an assistant message.")
    tool_call_id: str | None = Field(default=None, description="On a tool message: the call that it answers.")


class Message(Frozen):
    """One message of a conversation."""

    speaker: Speaker = Field(description="Who said it.")
    text: str = Field(description="What was said.")
    tool_calls: tuple[ToolCall, ...] = Field(default=(), description="Calls that an agent's message makes.")
    tool_call_id: str | None = Field(default=None, description="On a tool's message: the call that it answers.")
