"""Tool calls in replies, in the manners of many templates."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from influence_cli.backends.tool_calls import split_tool_calls


def test_calls_are_taken_out_of_a_reply():
    text = 'One moment. <tool_call>{"name": "book", "arguments": {"n": 2}}</tool_call>'
    rest, (call,) = split_tool_calls(text)
    assert (rest, call.name, call.arguments) == ("One moment.", "book", {"n": 2})


@pytest.mark.parametrize(
    "text",
    [
        '<tool_call>[{"name": "book", "arguments": {"n": 2}}]</tool_call>',
        '<tool_call>\n{"name": "book", "arguments": {"n": 2}}',
        '[TOOL_CALLS] [{"name": "book", "arguments": {"n": 2}}]',
        '[{"name": "book", "arguments": {"n": 2}}]',
        '<|python_tag|>{"name": "book", "parameters": {"n": 2}}',
        '```json\n{"name": "book", "parameters": {"n": 2}}\n```',
        '<function=book>{"n": 2}</function>',
        'book{"n": 2}',
    ],
)
def test_calls_are_read_in_the_manner_of_many_templates(text):
    rest, (call,) = split_tool_calls(text, {"book"})
    assert (rest, call.name, call.arguments) == ("", "book", {"n": 2})


def test_several_bare_calls_are_told_apart():
    one = '{"name": "book", "parameters": {"n": %d}}'
    _, calls = split_tool_calls(f"{one % 1}; {one % 2}", {"book"})
    assert [(call.id, call.arguments["n"]) for call in calls] == [("call_0", 1), ("call_1", 2)]


@pytest.mark.parametrize(
    "bad",
    [
        "<tool_call>{oops}</tool_call>",
        '<tool_call>{"name": 3}</tool_call>',
        "plain",
        '{"name": "cook", "arguments": {}}',
        'I would call {"name": "book", "arguments": {}}.',
        '{"name": "book", "arguments": {}} and then?',
        "{" * 5000,
        "[" * 100_000,
    ],
)
def test_what_is_no_call_stays_text(bad):
    assert split_tool_calls(bad, {"book"}) == (bad, ())


@given(st.text(max_size=80))
def test_any_text_can_be_looked_at_for_calls(text):
    rest, calls = split_tool_calls(f"<tool_call>{text}</tool_call>")
    assert rest or calls
