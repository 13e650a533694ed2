"""Tool calls in a reply.

Concept: models write calls in the manner of their template, and the tokens that mark them may be gone with decoding.
Tagged calls count wherever they stand and whatever they name, so that a mistaken name is answered as a mistake; untagged
ones only if a reply holds nothing else and names a tool that exists, so that text about a call stays text.

| manner | looks like | of |
| --- | --- | --- |
| tags | ``<tool_call>{"name": ..., "arguments": {...}}</tool_call>``, a list too | Hermes, Qwen, SmolLM2 |
| marked list | ``[TOOL_CALLS] [{"name": ..., "arguments": {...}}]`` | Mistral |
| named tag | ``<function=NAME>{...}</function>`` | Llama 3 |
| bare | ``{"name": ..., "parameters": {...}}``, several with ``;`` or line breaks, in a code fence too | Llama 3 |
| name and arguments | ``NAME{...}`` | Mistral 3 |
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from typing import Any

import orjson

from influence_cli.schemas.messages import ToolCall

_TAGGED = re.compile(r"<tool_call>\s*([\[{].*?[\]}])\s*(?:</tool_call>|\Z)", re.DOTALL)
_NAMED = re.compile(r"<function=([\w.-]+)>\s*(\{.*?\})\s*</function>", re.DOTALL)
_MARKS = re.compile(r"^(?:<\|python_tag\|>|\[TOOL_CALLS\])\s*")
_FENCED = re.compile(r"```(?:json|tool_call)?\s*\n(.*?)\n?```", re.DOTALL)
_NAME = re.compile(r"([\w.-]+)(?:\[ARGS\])?\s*(?=\{)")
_BETWEEN = re.compile(r"[\s;,]*")
_DECODER = json.JSONDecoder()

Found = list[tuple[str, dict[str, Any]]]


def split_tool_calls(text: str, names: Collection[str] = ()) -> tuple[str, tuple[ToolCall, ...]]:
    """Return a reply without its tool calls, and the calls; ``names`` are the tools that exist.

    What is no call by the table above stays in the text.
    """
    found: Found = []

    def tagged(match: re.Match[str]) -> str:
        calls = _of(_value(match.group(1)))
        found.extend(calls)
        return "" if calls else match.group()

    def named(match: re.Match[str]) -> str:
        arguments = _value(match.group(2))
        if not isinstance(arguments, dict) or not _can_be_kept(match.group(1), arguments):
            return match.group()
        found.append((match.group(1), arguments))
        return ""

    rest = _NAMED.sub(named, _TAGGED.sub(tagged, text))
    if not found:
        found = [*_bare(text, names)]
        rest = "" if found else text
    if not found:
        return text, ()
    calls = tuple(ToolCall(id=f"call_{n}", name=name, arguments=given) for n, (name, given) in enumerate(found))
    return rest.strip(), calls


def _bare(text: str, names: Collection[str]) -> Found:
    """Return the calls of a reply that consists of calls only; none if anything else is in it."""
    left = _MARKS.sub("", text.strip())
    fenced = _FENCED.fullmatch(left)
    left = fenced.group(1).strip() if fenced else left
    found: Found = []
    while left:
        begun = _NAME.match(left)
        try:
            value, end = _DECODER.raw_decode(left, begun.end() if begun else 0)
        except (ValueError, RecursionError):
            return []
        calls = _of({"name": begun.group(1), "arguments": value} if begun else value)
        if not calls or any(name not in names for name, _ in calls):
            return []
        found += calls
        left = left[end:]
        left = left[_BETWEEN.match(left).end() :]  # type: ignore[union-attr]  # it matches nothing as well
    return found


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _can_be_kept(name: str, arguments: dict[str, Any]) -> bool:
    """Return whether a call can be stored: no number beyond 64 bits or infinite, no half of a surrogate pair."""
    try:
        orjson.dumps(ToolCall(id="call", name=name, arguments=arguments).model_dump())
    except (TypeError, ValueError):
        return False
    return True


def _of(value: Any) -> Found:
    """Return the calls that a JSON value says: an object with name and arguments, or a list of them; else none."""
    values = value if isinstance(value, list) else [value]
    found: Found = []
    for each in values:
        if not isinstance(each, dict):
            return []
        arguments = each.get("arguments", each.get("parameters", {}))
        name = each.get("name")
        if not isinstance(name, str) or not isinstance(arguments, dict) or not _can_be_kept(name, arguments):
            return []
        found.append((each["name"], arguments))
    return found
