"""Tool calls in a reply."""

from __future__ import annotations

import json
import re

from influence_cli.api import ToolCall

_CALL = re.compile(r"<tool_call>\s*(\{.*?\})\s*</tool_call>", re.DOTALL)


def split_tool_calls(text: str) -> tuple[str, tuple[ToolCall, ...]]:
    """Return a reply without its tool calls, and the calls: JSON objects with name and arguments in <tool_call> tags.

    A call that is not such an object stays in the text.
    """
    calls: list[ToolCall] = []

    def take(match: re.Match[str]) -> str:
        try:
            value = json.loads(match.group(1))
        except ValueError:
            return match.group()
        arguments = value.get("arguments", value.get("parameters", {}))
        if not isinstance(value.get("name"), str) or not isinstance(arguments, dict):
            return match.group()
        calls.append(ToolCall(id=f"call_{len(calls)}", name=value["name"], arguments=arguments))
        return ""

    rest = _CALL.sub(take, text)
    return (rest.strip(), tuple(calls)) if calls else (text, ())
