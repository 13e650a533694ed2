"""A person in the place of a model: what they are shown, and what their lines become."""

import asyncio

import pytest

from influence_cli.backends.terminal import TerminalBackend, TerminalOptions
from influence_cli.schemas.messages import ChatMessage, ToolCall
from influence_cli.schemas.requests import ChoiceRequest, GenerateRequest, Sampling, ToolSchema

BOOK = ToolSchema(
    name="book", description="Books.", parameters={"type": "object", "properties": {"who": {"type": "string"}}}
)


@pytest.fixture
def person():
    """A backend whose person types ``lines``; what it shows is in ``shown``."""

    def make(*lines):
        typed = iter(lines)
        shown = []

        def read(prompt):
            line = next(typed, None)
            if line is None:
                raise EOFError
            if isinstance(line, Exception):
                raise line
            return line

        backend = TerminalBackend("you", TerminalOptions(), read=read, show=shown.append)
        return backend, shown

    return make


def ask(*messages, tools=()):
    return GenerateRequest(role="agent", messages=messages, sampling=Sampling(), seed=1, tools=tools)


SYSTEM = ChatMessage(role="system", content="You are a waiter.")
HELLO = ChatMessage(role="user", content="Hello.")


async def test_only_what_is_new_is_shown(person):
    backend, shown = person("Good evening.", "", "  The soup.  ")
    assert (await backend.generate(ask(SYSTEM, HELLO))).text == "Good evening."
    said = ChatMessage(role="assistant", content="Good evening.")
    asked = ChatMessage(role="user", content="What is there?")
    assert (await backend.generate(ask(SYSTEM, HELLO, said, asked))).text == "The soup."
    assert shown == ["You are a waiter.\n", "--> Hello.\n", "--> What is there?\n"]


async def test_a_line_can_call_a_tool(person):
    backend, shown = person("/call", "/call cook {}", "/call book [1]", '/call book {"who": "Ada"}', "/call book")
    answer = await backend.generate(ask(SYSTEM, HELLO, tools=(BOOK,)))
    assert answer.tool_calls == (ToolCall(id="call-1", name="book", arguments={"who": "Ada"}),)
    assert sum("That is no call" in text for text in shown) == 3
    assert any("To call a tool, type /call NAME" in text for text in shown)
    result = ChatMessage(role="tool", content="full", tool_call_id="call-1")
    called = ChatMessage(role="assistant", content="", tool_calls=answer.tool_calls)
    again = await backend.generate(ask(SYSTEM, HELLO, called, result, tools=(BOOK,)))
    assert again.tool_calls[0].id == "call-2"
    assert shown[-1] == "tool: full\n"


async def test_without_tools_such_a_line_is_said(person):
    backend, _ = person("/call book {}")
    assert (await backend.generate(ask(HELLO))).text == "/call book {}"


async def test_a_choice_is_asked_for_until_it_is_one(person):
    backend, _ = person("3", "1")
    found = await backend.choose(ChoiceRequest(role="preference", messages=(HELLO,), choices=("0", "1"), seed=1))
    assert found.probabilities == (0.0, 1.0)


async def test_the_end_of_input_stops(person):
    backend, _ = person()
    with pytest.raises(asyncio.CancelledError):
        await backend.generate(ask(HELLO))


async def test_what_cannot_be_read_is_a_failure(person):
    from influence_cli.errors import CallFailedError

    backend, _ = person(UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"))
    with pytest.raises(CallFailedError, match="invalid start byte"):
        await backend.generate(ask(HELLO))
