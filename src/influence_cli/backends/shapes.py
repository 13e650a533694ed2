"""Ways to put a prompt so that a chat template takes it.

Concept: templates differ in what they lack (system, tool messages, two user messages in a row, a first message by the
assistant). Instead of knowing families, :func:`shapes` lists ever plainer forms of the same prompt; the caller takes the
first that renders and loses nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from influence_cli.schemas.messages import ChatMessage

Turn = dict[str, Any]
"""A message as chat templates take it: role, content and, for some, tool calls."""


@dataclass
class Shaped:
    """A form of a prompt, and the texts that its rendering must hold."""

    turns: list[Turn]
    tools: list[dict[str, Any]] | None
    must_appear: list[str]


def turns(messages: Sequence[ChatMessage]) -> list[Turn]:
    """Return messages as chat templates take them."""
    shown: list[Turn] = []
    names: dict[str, str] = {}
    for message in messages:
        turn: Turn = {"role": message.role, "content": message.content}
        if message.tool_calls:
            turn["tool_calls"] = [
                {"id": c.id, "type": "function", "function": {"name": c.name, "arguments": c.arguments}}
                for c in message.tool_calls
            ]
            names.update({c.id: c.name for c in message.tool_calls})
        if message.tool_call_id is not None:
            turn["tool_call_id"] = message.tool_call_id
            turn["name"] = names.get(message.tool_call_id, message.tool_call_id)
        shown.append(turn)
    return shown


def shapes(given: list[Turn], tools: list[dict[str, Any]]) -> Iterator[Shaped]:
    """Yield the forms of a prompt, the most faithful first."""
    yield _shaped(given, tools)
    plain = _tools_as_text(given, tools) if tools or any(_of_tools(t) for t in given) else given
    if plain is not given:
        yield _shaped(plain, [])
    folded = _fold_system(plain)
    if folded != plain:
        yield _shaped(folded, [])
    merged = _alternating(plain)
    yield _shaped(merged, [])
    yield _shaped(_alternating(folded), [])


def _shaped(shown: list[Turn], tools: list[dict[str, Any]]) -> Shaped:
    texts = [t["content"] for t in shown if t["role"] != "assistant"]
    called = [call["function"]["name"] for t in shown for call in t.get("tool_calls", ())]
    return Shaped(shown, tools or None, texts + called + [tool["name"] for tool in tools])


def _of_tools(turn: Turn) -> bool:
    return turn["role"] == "tool" or "tool_calls" in turn


def _tools_as_text(given: list[Turn], tools: list[dict[str, Any]]) -> list[Turn]:
    """Return the prompt with tools described in a system message, calls and results as text."""
    shown: list[Turn] = []
    for turn in given:
        if turn["role"] == "tool":
            shown.append({"role": "user", "content": f"Result of {turn.get('name', 'the tool')}: {turn['content']}"})
        elif "tool_calls" in turn:
            calls = [f"<tool_call>{json.dumps(c['function'])}</tool_call>" for c in turn["tool_calls"]]
            shown.append({"role": "assistant", "content": "\n".join([turn["content"], *calls]).strip()})
        else:
            shown.append(turn)
    if not tools:
        return shown
    lines = "\n".join(json.dumps(tool) for tool in tools)
    text = (
        "You may call these tools, each described by a line of JSON:\n"
        f'{lines}\nTo call one, answer with <tool_call>{{"name": ..., "arguments": {{...}}}}</tool_call>.'
    )
    if shown and shown[0]["role"] == "system":
        return [{"role": "system", "content": f"{shown[0]['content']}\n\n{text}"}, *shown[1:]]
    return [{"role": "system", "content": text}, *shown]


def _fold_system(given: list[Turn]) -> list[Turn]:
    """Return the prompt with system messages as part of the next user message (or as one)."""
    shown: list[Turn] = []
    held: list[str] = []
    for turn in given:
        if turn["role"] == "system":
            held.append(turn["content"])
        elif turn["role"] == "user" and held:
            shown.append({"role": "user", "content": "\n\n".join([*held, turn["content"]])})
            held = []
        elif held:
            shown += [{"role": "user", "content": "\n\n".join(held)}, turn]
            held = []
        else:
            shown.append(turn)
    if held:
        shown.append({"role": "user", "content": "\n\n".join(held)})
    return shown


def _alternating(given: list[Turn]) -> list[Turn]:
    """Return the prompt with neighbours of one role joined, and a user message before a first one by the assistant."""
    shown: list[Turn] = []
    for turn in given:
        if shown and shown[-1]["role"] == turn["role"]:
            shown[-1] = {"role": turn["role"], "content": f"{shown[-1]['content']}\n\n{turn['content']}"}
        else:
            shown.append(dict(turn))
    first = next((i for i, t in enumerate(shown) if t["role"] != "system"), len(shown))
    if first < len(shown) and shown[first]["role"] == "assistant":
        shown.insert(first, {"role": "user", "content": "(The conversation begins.)"})
    return shown
