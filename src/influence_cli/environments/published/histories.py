"""From histories to initial states: messages, tool calls and their results."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Any

from influence_cli.environments.format_strings import as_template
from influence_cli.environments.published.calls import outcome_of, read_call
from influence_cli.environments.published.files import EnvironmentFile
from influence_cli.environments.published.report import ImportReport, slug, unlike

SPEAKERS = {
    "environment": "user", "user": "user", "human": "user", "character": "user", "char": "user",
    "agent": "agent", "assistant": "agent", "ai": "agent",
    "environment_system": "system", "system": "system",
}  # fmt: skip
_CALLS = ("tool_call", "function_call")
_RESULTS = ("tool_response", "tool", "function_response", "function", "tool_result")
_LONGEST = 40_000
_SILENT = '{"status": "error", "detail": "no answer"}'


class Histories:
    """The initial states of one scenario; ``called`` collects an example of each tool's arguments."""

    def __init__(self, known: Set[str], called: dict[str, Mapping[str, Any]], report: ImportReport) -> None:
        self._known = known
        self._called = called
        self._report = report
        self._taken: set[str] = set()

    def states(self, file: EnvironmentFile, *, prefixed: bool) -> Iterator[dict[str, Any]]:
        """Yield the initial states of ``file``; with ``prefixed``, named after their population."""
        self._report.place("histories", "initial states")
        for key, history in file.histories.items():
            stem = slug(key, "state")
            name = unlike(f"{file.population}-{stem}" if prefixed and file.population else stem, self._taken)
            messages = list(self._messages(file, history))
            if not any(message["text"] or message.get("tool_calls") for message in messages):
                self._report.leave("histories without any message", "left out")
                continue
            if any(len(message["text"]) > _LONGEST for message in messages):
                self._report.leave(f"histories with a message of more than {_LONGEST:,} characters", "left out")
                continue
            self._taken.add(name)
            bound = {"population": file.population} if file.population else {}
            yield {"id": name, **bound, "messages": messages}

    def _messages(self, file: EnvironmentFile, history: Sequence[Any]) -> Iterator[dict[str, Any]]:
        waiting: list[str] = []
        calls = 0
        for item in history:
            message = {"role": "environment", "content": item} if isinstance(item, str) else item
            if not isinstance(message, dict):
                self._report.leave("messages that are neither text nor an object", "left out")
                continue
            role = str(message.get("role") or message.get("speaker") or "").strip().lower()
            text = self.text(message)
            if role in _CALLS:
                calls += 1
                waiting.append(f"call-{calls}")
                yield self._call(file, waiting[-1], message.get("content", message.get("text", "")))
            elif role in _RESULTS:
                if not waiting:
                    calls += 1
                    waiting.append(f"call-{calls}")
                    yield self._call(file, waiting[-1], {"name": file.tool, "arguments": {}})
                    self._report.leave("tool_response messages without a call", "a call without arguments put before")
                yield self._result(waiting.pop(0), as_template(text, self._known), outcome_of(text))
                self._report.place(
                    "tool_response messages", "results of tools; what really happened is guessed from their text"
                )
            elif role not in SPEAKERS:
                self._report.leave(f"messages of the role {role[:40]!r}", "unknown; left out")
            elif text.strip():
                yield from self._unanswered(waiting)
                yield {"speaker": SPEAKERS[role], "text": as_template(text, self._known)}
            else:
                self._report.leave("messages without text", "left out")
        yield from self._unanswered(waiting)

    def _unanswered(self, waiting: list[str]) -> Iterator[dict[str, Any]]:
        while waiting:
            self._report.leave("tool_call messages without a response", "answered by an error: each call has a result")
            yield self._result(waiting.pop(0), _SILENT, "failure")

    def _call(self, file: EnvironmentFile, number: str, content: Any) -> dict[str, Any]:
        name, arguments = read_call(content, file)
        self._called.setdefault(name, arguments)
        self._report.place("tool_call messages", "tool calls of the agent")
        call = {"id": number, "name": name, "arguments": _filled(arguments, self._known)}
        return {"speaker": "agent", "text": "", "tool_calls": [call]}

    def _result(self, number: str, text: str, outcome: str) -> dict[str, Any]:
        return {"speaker": "tool", "text": text, "tool_call_id": number, "outcome": outcome}

    def text(self, message: Mapping[str, Any]) -> str:
        """Return what a message says, whatever its content is made of."""
        return _said(message.get("content", message.get("text", "")))


def _said(content: Any) -> str:
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        parts = (part.get("text", "") if isinstance(part, dict) else part for part in content)
        return "\n".join(_said(part) for part in parts)
    return json.dumps(content, ensure_ascii=False)


def _filled(value: Any, known: Set[str]) -> Any:
    """Return a call's arguments with their texts as templates."""
    if isinstance(value, str):
        return as_template(value, known)
    if isinstance(value, list):
        return [_filled(each, known) for each in value]
    if isinstance(value, dict):
        return {key: _filled(each, known) for key, each in value.items()}
    return value
