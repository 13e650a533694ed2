"""Asking ahead: a user's message and the next reply are had before the state is known, and change no conversation."""

import asyncio

from influence_cli.backends.scripted import ScriptedBackend, ScriptedOptions
from influence_cli.environments.environment import Environment

from .conftest import MemoryJournal

STAY = "choices: [{role: transition, weights: {stay: 1}}, {weights: {'1': 1}}]"
LEAVE = "choices: [{role: transition, weights: {leave: 1}}, {weights: {'1': 1}}]"


class SlowTransition(ScriptedBackend):
    """Answers a transition only once the agent has been asked for its next reply, or ``patience`` has passed."""

    def __init__(self, model: str, patience: float) -> None:
        super().__init__(model, ScriptedOptions())
        self.patience = patience
        self.asked_again = asyncio.Event()
        self.replies = 0
        self.overtaken = 0

    async def generate(self, request):
        if request.role == "agent":
            self.replies += 1
            if self.replies > 1:
                self.asked_again.set()
                await asyncio.sleep(0.01)
        return await super().generate(request)

    async def choose(self, request):
        if request.role == "transition":
            try:
                await asyncio.wait_for(self.asked_again.wait(), self.patience)
                self.overtaken += 1
            except TimeoutError:
                pass
        return await super().choose(request)


async def test_a_speculative_message_is_dropped_when_the_conversation_ends(make_runner, journal, script):
    model = script("choices: [{role: transition, weights: {leave: 1}}, {weights: {'1': 1}}]")
    tally = await make_runner(model=model, latency=0.005).simulate()
    assert {end.reason for end in journal.ends.values()} == {"terminal_state"}
    assert tally.speculations_dropped == 8
    users = [c for c in journal.all_calls() if c.role == "user"]
    assert len(users) == 8
    assert len(journal.dropped) == sum(call.error is None for call in users)
    said = [m.speaker for messages, _, _ in journal.conversations().values() for m in messages if m.turn]
    assert said == ["agent"] * 8


async def test_a_slow_transition_delays_no_turn(make_runner, journal, script):
    backend = SlowTransition(script(STAY), patience=5)
    tally = await make_runner(backend=backend, n=1).simulate()
    assert backend.overtaken == 3
    assert tally.speculations_dropped == 0
    told = MemoryJournal()
    await make_runner(model=script(STAY), n=1, speculate=False, into=told).simulate()
    assert journal.conversations() == told.conversations()


async def test_a_reply_had_too_early_is_dropped_and_accounted_for(make_runner, journal, script):
    backend = SlowTransition(script(LEAVE), patience=5)
    await make_runner(backend=backend, n=1).simulate()
    ((messages, _, end),) = journal.conversations().values()
    assert [m.speaker for m in messages if m.turn] == ["agent"]
    assert (end.reason, end.turns) == ("terminal_state", 1)
    assert [(c.turn, c.error) for c in journal.all_calls() if c.role == "agent"] == [(1, None), (2, "cancelled")]


async def test_without_speculation_the_transition_is_waited_for(make_runner, script):
    backend = SlowTransition(script(STAY), patience=0.01)
    await make_runner(backend=backend, n=1, speculate=False).simulate()
    assert backend.overtaken == 2


async def test_nothing_is_asked_for_ahead_where_computing_is_the_limit(make_runner, script):
    backend = SlowTransition(script(STAY), patience=0.01)
    backend.capabilities = backend.capabilities.model_copy(update={"compute_bound": True})
    await make_runner(backend=backend, n=1).simulate()
    assert backend.overtaken == 2


async def test_a_user_message_outlives_a_change_of_state_that_leaves_its_prompt(make_runner, journal, script, tiny):
    states = tiny.spec.states
    plain = states["returned"].model_copy(update={"messages": (), "roles": type(states["returned"].roles)()})
    spec = tiny.spec.model_copy(update={"states": {**states, "returned": plain}})
    changed = Environment(spec, list(tiny.scenarios.values()), tiny.digest, tiny.folder)
    model = script("choices: [{role: transition, weights: {later: 1, stay: 1}}, {weights: {'1': 1}}]")
    await make_runner(model=model, environment=changed, n=8).simulate()
    told = MemoryJournal()
    await make_runner(model=model, environment=changed, n=8, speculate=False, into=told).simulate()
    assert journal.conversations() == told.conversations()
    assert any(m.state == "talking" and e.state == "returned" for ms, _, e in told.conversations().values() for m in ms)
