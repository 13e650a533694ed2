"""An agent whose replies come from outside."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import orjson

from influence_cli.errors import InfluenceError
from influence_cli.schemas.messages import ToolCall
from influence_cli.schemas.requests import (
    Capabilities,
    ChoiceRequest,
    Distribution,
    GenerateRequest,
    Generation,
    Usage,
)

Reply = str | Mapping[str, Any]
"""What the agent says: a text, or an assistant's message with ``content`` and ``tool_calls``."""


class OutsideAgent:
    """The backend of one conversation's agent: one request at a time, answered by :meth:`answer`."""

    capabilities = Capabilities(logprobs=False, seeds=False)

    def __init__(self) -> None:
        self._asked: asyncio.Queue[GenerateRequest] = asyncio.Queue()
        self._answer: asyncio.Future[Generation] | None = None
        self._answered = 0

    async def asked(self) -> GenerateRequest:
        """Return the next request, once there is one."""
        return await self._asked.get()

    def answer(self, reply: Reply) -> None:
        """Answer the request that was handed out last; InfluenceError if there is none, or the reply is none."""
        if self._answer is None or self._answer.done():
            raise InfluenceError("No reply is waited for.", hint="Call reset first.")
        generation = read_reply(reply, name=f"call-{self._answered}")
        self._answered += 1
        self._answer.set_result(generation)

    async def generate(self, request: GenerateRequest) -> Generation:
        """Hand ``request`` out, and return what is answered."""
        self._answer = asyncio.get_running_loop().create_future()
        self._asked.put_nowait(request)
        return await self._answer

    async def choose(self, request: ChoiceRequest) -> Distribution:
        """Refuse: who speaks from outside judges nothing."""
        raise NotImplementedError

    async def aclose(self) -> None:
        """Release nothing."""


def read_reply(reply: Reply, *, name: str = "call") -> Generation:
    """Return a reply as a backend gives it; InfluenceError if it is none. Nothing is known of what it took.

    ``name`` begins the identifiers of calls that have none.
    """
    usage = Usage(requests=0)
    if isinstance(reply, str):
        return Generation(text=reply, usage=usage)
    try:
        calls = tuple(_call(call, f"{name}-{number}") for number, call in enumerate(reply.get("tool_calls") or ()))
        text = str(reply.get("content") or "")
        return Generation(text=text, tool_calls=calls, finish_reason="tool_calls" if calls else "stop", usage=usage)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InfluenceError(
            f"This is no reply of an agent: {type(error).__name__}: {error}",
            hint="Give a text, or a message with `content` and `tool_calls` as chat APIs have them.",
        ) from None


def _call(call: Mapping[str, Any], name: str) -> ToolCall:
    """Return a tool call, written as chat APIs write it or flat; ``name`` identifies one that says not which it is."""
    named = call.get("function", call)
    given = named["arguments"] if isinstance(named, Mapping) else call["arguments"]
    arguments = orjson.loads(given) if isinstance(given, str) else dict(given)
    tool = named["name"] if isinstance(named, Mapping) else str(named)
    return ToolCall(id=str(call.get("id") or name), name=tool, arguments=arguments)
