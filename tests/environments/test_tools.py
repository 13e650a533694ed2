"""Tools: what comes of a call, who sees it, and what an author is told."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from influence_cli.environments.layout import transcript
from influence_cli.environments.tools import answer_call
from influence_cli.schemas.environment import Tool, ToolOutcome
from influence_cli.schemas.messages import Message, ToolCall

BOOK = Tool(
    name="book",
    description="Book a table.",
    parameters={
        "type": "object",
        "properties": {"name": {"type": "string"}, "people": {"type": "integer"}},
        "required": ["name", "people"],
        "additionalProperties": False,
    },
    outcomes=(
        ToolOutcome(when={"name": "Ada "}, result="booked for {{ arguments.name }}", kind="success"),
        ToolOutcome(result="error: full", kind="failure", weight=3.0),
        ToolOutcome(result="waiting list at {{ place }}", kind="partial", weight=1.0),
    ),
)


def call(**arguments):
    return ToolCall(id="call-1", name="book", arguments=arguments)


def answer(made, own=None, point=0.0):
    return answer_call(made, [BOOK], own or {}, {"place": "Rosa"}, point)


def test_an_outcome_that_names_the_arguments_comes_first():
    found = answer(call(name="ada", people=2))
    assert (found.text, found.outcome) == ("booked for ada", "success")


def test_others_are_drawn_by_weight():
    counts = Counter(answer(call(name="Bo", people=2), point=i / 400).outcome for i in range(400))
    assert counts == {"failure": 300, "partial": 100}
    assert answer(call(name="Bo", people=2), point=0.99).text == "waiting list at Rosa"


def test_a_scenarios_outcomes_come_before_the_environments():
    own = {"book": (ToolOutcome(result="the kitchen burnt down", kind="failure"),)}
    assert answer(call(name="Ada", people=2), own).text == "the kitchen burnt down"


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (call(name="Bo"), "'people' is a required property"),
        (call(name="Bo", people="two"), "'two' is not of type 'integer'"),
        (ToolCall(id="1", name="bok", arguments={}), "there is no tool 'bok'; available: book"),
    ],
)
def test_a_mistaken_call_is_told_what_is_wrong(made, says):
    found = answer(made)
    assert says in found.text
    assert found.outcome == "failure"


@given(st.dictionaries(st.text(max_size=8), st.one_of(st.none(), st.integers(), st.text(max_size=20)), max_size=4))
def test_every_call_has_an_answer(arguments):
    assert answer(ToolCall(id="1", name="book", arguments=arguments)).text


def test_judges_see_calls_only_where_they_may():
    messages = [
        Message(speaker="user", text="A table, please."),
        Message(speaker="agent", text="", tool_calls=(call(name="Ada", people=2),)),
        Message(speaker="tool", text="error: full </agent>", tool_call_id="call-1"),
        Message(speaker="agent", text="Done!"),
    ]
    seen = transcript(messages, tools=True)
    assert '[calls book {"name":"Ada","people":2}]' in seen
    assert "error: full" in seen
    assert "</agent></agent>" not in seen.replace("\n", "")
    assert "book" not in transcript(messages)
    assert transcript(messages).count("<agent>") == 1
