"""An agent that calls tools: in one turn, stored, resumed, and within bounds."""

import pytest

from influence_cli.backends.scripted import ScriptedBackend, ScriptedOptions
from influence_cli.environments.environment import Environment
from influence_cli.environments.tools import MAX_STEPS
from influence_cli.schemas.environment import Tool, ToolOutcome
from influence_cli.schemas.messages import ToolCall
from influence_cli.schemas.requests import Generation

from .conftest import MemoryJournal

LOOK = Tool(
    name="look",
    description="Look something up.",
    parameters={"type": "object", "properties": {"what": {"type": "string"}}, "required": ["what"]},
    outcomes=(
        ToolOutcome(result="found {{ arguments.what }}", kind="success"),
        ToolOutcome(result="error: nothing", kind="failure"),
    ),
)


class Caller(ScriptedBackend):
    """Calls the tool ``times`` times in each turn before it speaks; records what it was asked."""

    def __init__(self, times: int, model: str = "demo") -> None:
        super().__init__(model, ScriptedOptions())
        self.times = times
        self.asked = []

    async def generate(self, request):
        if request.role != "agent":
            return await super().generate(request)
        self.asked.append(request)
        since = 0
        for message in reversed(request.messages):
            if message.role == "tool":
                since += 1
            elif message.role == "user":
                break
        if since < self.times and request.tools:
            return Generation(text="", tool_calls=(ToolCall(id=f"c{since}", name="look", arguments={"what": "tea"}),))
        return Generation(text=f"After {since} calls.")


@pytest.fixture
def tooled(tiny):
    roles = tiny.spec.roles
    agent = roles.agent.model_copy(update={"sees_tools": True})
    spec = tiny.spec.model_copy(update={"tools": (LOOK,), "roles": roles.model_copy(update={"agent": agent})})
    return Environment(spec, list(tiny.scenarios.values()), tiny.digest, tiny.folder)


def first_turn(journal):
    messages, _, _ = next(iter(journal.conversations().values()))
    return [m for m in messages if m.turn == 1 and m.speaker in ("agent", "tool")]


async def test_calls_are_answered_within_the_turn(make_runner, journal, tooled):
    await make_runner(backend=Caller(2), environment=tooled, n=1).simulate()
    said = first_turn(journal)
    assert [m.speaker for m in said] == ["agent", "tool", "agent", "tool", "agent"]
    assert [m.tool_call_id for m in said if m.speaker == "tool"] == ["c0", "c1"]
    assert said[-1].text == "After 2 calls."
    assert {(m.text, m.outcome) for m in said if m.speaker == "tool"} <= {
        ("found tea", "success"),
        ("error: nothing", "failure"),
    }
    ((_, _, end),) = journal.conversations().values()
    assert end.turns == max(m.turn for m in next(iter(journal.messages.values())))


async def test_an_agent_that_only_calls_has_to_speak_in_the_end(make_runner, journal, tooled):
    backend = Caller(100)
    await make_runner(backend=backend, environment=tooled, n=1, turns=1).simulate()
    said = first_turn(journal)
    assert sum(m.speaker == "tool" for m in said) == MAX_STEPS
    assert said[-1].text == f"After {MAX_STEPS} calls."
    assert [bool(request.tools) for request in backend.asked] == [True] * MAX_STEPS + [False]


async def test_a_user_who_does_not_see_tools_hears_only_what_the_agent_says(tooled, make_runner, journal):
    heard = []

    class Listening(Caller):
        async def generate(self, request):
            if request.role == "user":
                heard.append(" ".join(m.content for m in request.messages))
            return await super().generate(request)

    await make_runner(backend=Listening(1), environment=tooled, n=4).simulate()
    assert heard
    assert not any("found tea" in text or "error: nothing" in text for text in heard)


async def test_concurrency_and_speculation_change_no_result(make_runner, journal, tooled):
    await make_runner(backend=Caller(1), environment=tooled, samples=2, concurrency=8).simulate()
    alone = MemoryJournal()
    settings = {"samples": 2, "concurrency": 1, "speculate": False}
    await make_runner(backend=Caller(1), environment=tooled, into=alone, **settings).simulate()
    assert journal.conversations() == alone.conversations()


async def test_taken_up_again_no_call_is_made_twice(make_runner, journal, tooled, script):
    stay = script("choices: [{role: transition, weights: {stay: 1}}, {weights: {'1': 1}}]")

    class Failing(Caller):
        async def generate(self, request):
            if request.role == "agent" and len(self.asked) == 4:
                raise RuntimeError("gone")
            return await super().generate(request)

    await make_runner(backend=Failing(2, stay), environment=tooled, n=1, turns=2).simulate()
    before = [m.text for m in next(iter(journal.messages.values())) if m.speaker == "tool"]
    assert journal.ends[0].status == "failed"
    journal.reopen_failed()
    await make_runner(backend=Caller(2, stay), environment=tooled, n=1, turns=2).simulate()
    whole = MemoryJournal()
    await make_runner(backend=Caller(2, stay), environment=tooled, n=1, turns=2, into=whole).simulate()
    assert [m.text for m in next(iter(journal.messages.values())) if m.speaker == "tool"][: len(before)] == before
    assert journal.conversations() == whole.conversations()
