"""How what was said is laid out for a model: a chat for who goes on talking, a transcript for who judges.

Concept: an actor reads the conversation as a chat in which it is the assistant; a judge reads one text with a tag for each
speaker, and a question whose last line names what may be answered. Neither holds what its reader is not to see of tools.

Invariant: in a transcript, nothing that was said can pass for a tag or for a call of a tool.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Literal

import orjson

from influence_cli.schemas.messages import ChatMessage, Message, ToolCall

_GAP = r"[\s/\uff0f\u00ad\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff]*"
_FENCE = re.compile(rf"[<\uff1c\ufe64](?={_GAP}(?:user|agent|tool|system)(?![A-Za-z0-9_]))", re.IGNORECASE)
_CALLS = re.compile(r"\[(?=\s*calls\b)", re.IGNORECASE)
_TOOL_NAME = re.compile(r"[\w.:/-]{1,100}")


def answer_line(choices: Sequence[str]) -> str:
    """Return the sentence that tells a judge what it may answer."""
    try:
        numbers: list[int] = [int(choice) for choice in choices]
    except ValueError:
        numbers = []
    if len(choices) == 2:
        return f"Answer only with {choices[0]} or {choices[1]}."
    if numbers and numbers == list(range(numbers[0], numbers[0] + len(numbers))):
        return f"Answer only with a whole number from {numbers[0]} to {numbers[-1]}."
    return f"Answer only with one of: {', '.join(choices)}."


def transcript(messages: Iterable[Message], *, tools: bool = False) -> str:
    """Return the conversation as a judge reads it: neither tags nor calls of tools can be forged by what is said."""
    lines = []
    for message in messages:
        if not tools and _only_tools(message):
            continue
        text = message.text
        if tools:
            text = "\n".join([_CALLS.sub("\u2039", text), *(_call_line(call) for call in message.tool_calls)]).strip()
        text = _FENCE.sub("\u2039", text)
        lines.append(f"<{message.speaker}>\n{text}\n</{message.speaker}>")
    return "\n".join(lines)


def _call_line(call: ToolCall) -> str:
    """Return a call as judges read it, on one line whatever the model called the tool."""
    name = call.name if _TOOL_NAME.fullmatch(call.name) else orjson.dumps(call.name).decode()
    return f"[calls {name} {orjson.dumps(call.arguments).decode()}]"


def chat(messages: Iterable[Message], *, me: str, tools: bool) -> list[ChatMessage]:
    """Return ``messages`` as a chat in which ``me`` is the assistant."""
    laid_out: list[ChatMessage] = []
    for message in messages:
        if not tools and _only_tools(message):
            continue
        if message.speaker == "tool":
            laid_out.append(ChatMessage(role="tool", content=message.text, tool_call_id=message.tool_call_id))
        elif message.speaker == "system":
            laid_out.append(ChatMessage(role="system", content=message.text))
        else:
            role: Literal["assistant", "user"] = "assistant" if message.speaker == me else "user"
            calls = message.tool_calls if tools else ()
            if not tools and laid_out and laid_out[-1].role == role:
                whole = f"{laid_out[-1].content}\n\n{message.text}"
                laid_out[-1] = ChatMessage(role=role, content=whole)
                continue
            laid_out.append(ChatMessage(role=role, content=message.text, tool_calls=calls))
    return laid_out


def _only_tools(message: Message) -> bool:
    """Return whether a message holds nothing for those who do not see tools."""
    return message.speaker == "tool" or bool(message.tool_calls and not message.text.strip())
