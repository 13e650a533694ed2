"""A person at the terminal in the place of a model: ``terminal:NAME``.

Invariant: nothing but what the person would see as this role is shown; what they type is the answer, word for word.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import textwrap
from collections.abc import Callable, Sequence

from influence_cli.errors import CallFailedError
from influence_cli.sanitize import visible
from influence_cli.schemas.frozen import Frozen
from influence_cli.schemas.messages import ChatMessage, ToolCall
from influence_cli.schemas.requests import (
    Capabilities,
    ChoiceRequest,
    Distribution,
    GenerateRequest,
    Generation,
    ToolSchema,
    Usage,
)

CALL = "/call"
"""Begins a line that calls a tool instead of saying something."""


class TerminalOptions(Frozen):
    """A person needs none."""


class TerminalBackend:
    """Asks the person at the terminal; an end of input (Ctrl-D) ends the run, resumably."""

    def __init__(
        self,
        model: str,
        options: TerminalOptions,  # noqa: ARG002 - every backend is made with its options
        *,
        read: Callable[[str], str] = input,
        show: Callable[[str], None] | None = None,
    ) -> None:
        self._name = model
        self._read = read
        self._show = show or _to_stderr
        self._shown = 0
        self._turn = asyncio.Lock()
        self._calls = 0
        self._told_tools = False

    @property
    def capabilities(self) -> Capabilities:
        """What a person can do."""
        return Capabilities(logprobs=False, seeds=False, max_concurrency=1)

    async def generate(self, request: GenerateRequest) -> Generation:
        """Return what the person types, one line."""
        async with self._turn:
            self._tell(request.messages)
            self._tell_tools(request.tools)
            while True:
                text = (await self._ask(f"{self._name}> ")).strip()
                if request.tools and text.startswith(CALL):
                    call = self._call(text, request.tools)
                    if call is not None:
                        return Generation(text="", tool_calls=(call,), finish_reason="tool_calls", usage=Usage())
                elif text:
                    return Generation(text=text, finish_reason="stop", usage=Usage())

    async def choose(self, request: ChoiceRequest) -> Distribution:
        """Return a distribution that is all on what the person chooses."""
        async with self._turn:
            self._tell(request.messages[-1:])
            answer = ""
            while answer not in request.choices:
                answer = (await self._ask(f"{' / '.join(request.choices)}> ")).strip()
            weights = tuple(float(choice == answer) for choice in request.choices)
            return Distribution(choices=request.choices, probabilities=weights, mass=1.0, method="sampled", draws=1)

    async def aclose(self) -> None:
        """Nothing is held."""

    async def _ask(self, prompt: str) -> str:
        try:
            return await asyncio.to_thread(self._read, prompt)
        except EOFError:
            raise asyncio.CancelledError from None
        except UnicodeDecodeError as error:
            raise CallFailedError("malformed", f"What was typed cannot be read: {error.reason}.", attempts=1) from None

    def _tell(self, messages: Sequence[ChatMessage]) -> None:
        """Show what the person has not seen yet: the part, what the other says, what was said in the person's name."""
        fresh = messages[self._shown :] if self._shown < len(messages) else messages
        for message in fresh:
            label = {"system": "", "assistant": f"{self._name}: ", "tool": "tool: "}.get(message.role, "--> ")
            calls = [
                f"{CALL} {call.name} {json.dumps(call.arguments, ensure_ascii=False)}" for call in message.tool_calls
            ]
            for text in (message.content, *calls):
                if text:
                    self._show(f"{label}{text}\n")
        self._shown = len(messages) + 1

    def _tell_tools(self, tools: Sequence[ToolSchema]) -> None:
        if self._told_tools or not tools:
            return
        self._told_tools = True
        for tool in tools:
            self._show(f"{tool.name}: {tool.description} {json.dumps(tool.parameters.get('properties', {}))}")
        self._show(f'To call a tool, type {CALL} NAME {{"argument": ...}}\n')

    def _call(self, line: str, tools: Sequence[ToolSchema]) -> ToolCall | None:
        """Return the call that a line makes; None, and say why, if it makes none."""
        _, name, arguments = (*line.split(maxsplit=2), "", "")[:3]
        try:
            value = json.loads(arguments or "{}")
        except (ValueError, RecursionError):
            value = None
        known = [tool.name for tool in tools]
        if name not in known or not isinstance(value, dict):
            self._show(f'That is no call: {CALL} NAME {{"argument": ...}}, with one of {", ".join(known)}.')
            return None
        self._calls += 1
        return ToolCall(id=f"call-{self._calls}", name=name, arguments=value)


def _to_stderr(text: str) -> None:
    width = min(shutil.get_terminal_size().columns, 100)
    for line in visible(text).split("\n"):
        sys.stderr.write(textwrap.fill(line, width, replace_whitespace=False) + "\n")
    sys.stderr.flush()
