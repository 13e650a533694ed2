"""Many conversations: complete, independent, resumable, stopped when they must be."""

import asyncio
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from influence_cli.backends.scripted import ScriptedBackend, ScriptedOptions
from influence_cli.environments.environment import Environment
from influence_cli.errors import CallFailedError, InfluenceError
from influence_cli.schemas.configs import Budget, Price

from .conftest import MemoryJournal


async def test_every_conversation_ends_once(make_runner, journal):
    tally = await make_runner(samples=4, concurrency=7).simulate()
    assert tally.complete == len(journal.ends) == 32
    assert {end.status for end in journal.ends.values()} == {"complete"}


@pytest.mark.parametrize(("concurrency", "speculate"), [(7, True), (64, True), (64, False)])
async def test_concurrency_and_speculation_change_no_conversation(make_runner, journal, concurrency, speculate):
    reference = MemoryJournal()
    await make_runner(samples=4, concurrency=1, speculate=False, into=reference).simulate()
    await make_runner(samples=4, concurrency=concurrency, speculate=speculate, latency=0.002).simulate()
    assert journal.conversations() == reference.conversations()


async def test_turns_are_limited(make_runner, journal):
    await make_runner(turns=1).simulate()
    assert {end.turns for end in journal.ends.values()} == {1}
    assert not [call for call in journal.all_calls() if call.role == "user" and call.error is None]


async def test_without_veto_the_veto_model_is_not_asked(make_runner, journal):
    await make_runner(veto=False).simulate()
    assert {call.role for call in journal.all_calls()} == {"agent", "user", "preference", "transition"}
    assert {end.mean_veto for end in journal.ends.values()} == {None}


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


async def test_a_state_that_changes_the_prompt_asks_the_user_again(make_runner, journal, script):
    await make_runner(model=script(LATER)).simulate()
    for messages, _, end in journal.conversations().values():
        assert [(m.turn, m.speaker, m.state) for m in messages] == [
            (0, "user", "talking"),
            (1, "agent", "talking"),
            (1, "system", "returned"),
            (1, "user", "returned"),
            (2, "agent", "returned"),
            (2, "user", "returned"),
            (3, "agent", "returned"),
        ]
        assert (end.reason, end.state) == ("turn_limit", "returned")


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


STAY = "choices: [{role: transition, weights: {stay: 1}}, {weights: {'1': 1}}]"
LATER = (
    "choices: [{role: transition, contains: 'A week later', weights: {stay: 1}},"
    " {role: transition, weights: {later: 1}}, {weights: {'1': 1}}]"
)
LEAVE = "choices: [{role: transition, weights: {leave: 1}}, {weights: {'1': 1}}]"


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


async def test_ratings_are_expected_values(make_runner, journal, script):
    model = script("choices: [{role: preference, weights: {'10': 1, '8': 1}}, {role: veto, weights: {'1': 1, '0': 3}}]")
    tally = await make_runner(model=model, turns=1).simulate()
    assert {(end.mean_rating, end.final_rating, end.mean_veto) for end in journal.ends.values()} == {(9.0, 9.0, 0.25)}
    assert tally.rating_sum / tally.ratings == 9.0


async def test_an_unusable_judgement_enters_no_figure(make_runner, journal, script):
    model = script("choices: [{role: preference, mass: 0.2, weights: {'10': 1}}]")
    tally = await make_runner(model=model, turns=1).simulate()
    assert {(end.status, end.mean_rating, end.unusable) for end in journal.ends.values()} == {("complete", None, 1)}
    assert tally.unusable == {"preference": 8}
    assert tally.ratings == 0


async def test_an_unusable_transition_changes_no_state(make_runner, journal, script):
    model = script("choices: [{role: transition, mass: 0.2, weights: {leave: 1}}, {weights: {'1': 1}}]")
    await make_runner(model=model).simulate()
    assert {(end.turns, end.state, end.unusable) for end in journal.ends.values()} == {(3, "talking", 3)}


@pytest.mark.parametrize("role", ["agent", "user", "transition"])
async def test_a_failed_call_fails_its_conversation_only(make_runner, journal, script, role):
    model = script(
        f"failures: [{{role: {role}, contains: Person2, kind: timeout}}]"
        if role != "agent"
        else "failures: [{role: agent, contains: Question 2, kind: timeout}]"
    )
    tally = await make_runner(model=model, samples=2).simulate()
    failed = {key.initial_state for key, (_, _, end) in journal.conversations().items() if end.status == "failed"}
    assert failed <= {"person-2"}
    assert tally.complete + tally.failed == 16
    assert tally.failures == Counter({(role, "timeout"): tally.failed})


async def test_a_failed_rating_lets_the_conversation_go_on_and_marks_it(make_runner, journal, script):
    model = script("failures: [{role: preference, kind: refused}]\nchoices: [{role: transition, weights: {stay: 1}}]")
    tally = await make_runner(model=model, stop_after_alike=1000).simulate()
    ends = list(journal.ends.values())
    assert {(end.status, end.turns, end.failure, end.mean_rating) for end in ends} == {("failed", 3, "refused", None)}
    assert tally.failures == Counter({("preference", "refused"): 8})


async def test_conversations_that_all_fail_alike_stop_the_run(make_runner, script):
    model = script("failures: [{kind: server_error}]")
    tally = await make_runner(model=model, samples=100, concurrency=2, stop_after_alike=5).simulate()
    assert tally.stop == "alike"
    assert 5 <= tally.failed <= 7


async def test_a_refused_key_stops_at_once(make_runner, script):
    model = script("failures: [{kind: auth}]")
    tally = await make_runner(model=model, samples=100, concurrency=1).simulate()
    assert (tally.stop, tally.failed) == ("alike", 3)


async def test_a_token_budget_stops_the_run_resumably(make_runner, journal):
    tally = await make_runner(samples=50, concurrency=4, budget=Budget(tokens=5000)).simulate()
    assert tally.stop == "tokens"
    assert 5000 <= tally.tokens < 8000
    assert tally.complete < 400
    await make_runner(samples=50).simulate()
    assert len(journal.ends) == 400


async def test_a_cost_budget_counts_prices(make_runner):
    price = Price(prompt=1e6, completion=0.0)
    tally = await make_runner(samples=50, concurrency=1, budget=Budget(cost=500.0), price=price).simulate()
    assert tally.stop == "cost"
    assert 500.0 <= tally.total_cost < 1000.0


async def test_a_stop_finishes_what_is_in_flight_and_repeats_nothing(make_runner, journal):
    runner = make_runner(samples=8, concurrency=16, latency=0.01)
    asyncio.get_running_loop().call_later(0.05, runner.stop)
    tally = await runner.simulate()
    assert tally.stop == "signal"
    assert len(journal.all_calls()) > 0
    await make_runner(samples=8, concurrency=16).simulate()
    assert len(journal.ends) == 64
    said = Counter((i, m.turn, m.speaker, m.state) for i, all_ in journal.messages.items() for m in all_ if m.turn)
    assert set(said.values()) == {1}
    reference = MemoryJournal()
    await make_runner(samples=8, concurrency=1, into=reference).simulate()
    assert journal.conversations() == reference.conversations()


@settings(max_examples=25, deadline=None)
@given(st.floats(0.001, 0.15), st.integers(1, 20))
def test_cut_off_anywhere_and_taken_up_it_is_the_unbroken_run(tiny, seconds, concurrency):
    from influence_cli.backends.names import parse_model_name
    from influence_cli.backends.scripted import ScriptedBackend, ScriptedOptions
    from influence_cli.schemas.configs import SimulationConfig
    from influence_cli.simulation.calls import Run
    from influence_cli.simulation.models import RoleModel
    from influence_cli.simulation.runner import Runner, start_tally

    from .conftest import ROLES

    def runner(journal, latency):
        config = SimulationConfig(samples=2, concurrency=concurrency)
        backend = ScriptedBackend("demo", ScriptedOptions(latency=latency, jitter=1.0))
        models = {role: RoleModel(parse_model_name("scripted:demo"), backend) for role in ROLES}
        return Runner(Run(config, models, journal, start_tally([tiny], config)), [tiny], journal)

    broken, whole = MemoryJournal(), MemoryJournal()

    async def cut_off():
        work = asyncio.create_task(runner(broken, 0.005).simulate())
        await asyncio.wait([work], timeout=seconds)
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)

    asyncio.run(cut_off())
    asyncio.run(runner(broken, 0.0).simulate())
    asyncio.run(runner(whole, 0.0).simulate())
    assert broken.conversations() == whole.conversations()


async def test_failed_conversations_ask_only_for_what_is_missing(make_runner, journal, script):
    await make_runner(model=script("failures: [{role: veto, kind: timeout}]"), stop_after_alike=1000).simulate()
    answered = Counter((i, c.turn, c.role) for i, calls in journal.calls.items() for c in calls if c.error is None)
    journal.reopen_failed()
    tally = await make_runner(model=script("choices: []")).simulate()
    assert tally.complete == 8
    repeated = {call.role for call in journal.all_calls() if call.ordinal == 1 and call.error is None}
    assert repeated - {"user"} == {"veto"}
    assert {role: entry.calls for role, entry in tally.roles.items() if role != "user"} == {
        "veto": sum(end.turns for end in journal.ends.values())
    }
    assert answered


class Exploding:
    """A backend with a bug."""

    from influence_cli.schemas.requests import Capabilities

    capabilities = Capabilities(logprobs=True, seeds=True)

    async def generate(self, request):
        raise RuntimeError("boom")

    async def choose(self, request):
        raise CallFailedError("refused", "no")

    async def aclose(self):
        pass


async def test_a_bug_in_a_backend_is_recorded_not_raised(make_runner, journal, caplog):
    tally = await make_runner(backend=Exploding(), stop_after_alike=1000).simulate()
    assert tally.failures == Counter({("agent", "internal"): 8})
    assert {end.detail for end in journal.ends.values()} == {"RuntimeError: boom"}
    assert "Traceback" in caplog.text


class FullDisk(MemoryJournal):
    def add_judgement(self, episode_id, call, judgement):
        raise InfluenceError("The disk is full.")


async def test_a_store_that_fails_ends_the_run_with_its_reason(make_runner):
    runner = make_runner(into=FullDisk(), latency=0.001)
    with pytest.raises(InfluenceError, match="The disk is full"):
        await runner.simulate()
    assert runner._run.tally.stop == "error"


async def test_empty_replies_are_failures(make_runner, journal, script):
    tally = await make_runner(model=script("replies: [{role: agent, texts: ['  ']}]"), stop_after_alike=99).simulate()
    assert tally.failures == Counter({("agent", "empty"): 8})
    assert {call.error for call in journal.all_calls()} == {"empty"}


class Mute:
    """A backend whose first look at every judgement finds no choice at all."""

    from influence_cli.schemas.requests import Capabilities

    capabilities = Capabilities(logprobs=True, seeds=True)

    def __init__(self, inner):
        self.inner = inner
        self.asked = Counter()

    async def generate(self, request):
        return await self.inner.generate(request)

    async def choose(self, request):
        key = (request.role, request.messages)
        self.asked[key] += 1
        if self.asked[key] == 1:
            raise CallFailedError("unusable", "No choice was among the answers.")
        return await self.inner.choose(request)

    async def aclose(self):
        pass


async def test_a_judgement_without_any_choice_is_asked_for_again(make_runner, journal):
    from influence_cli.backends.scripted import ScriptedBackend, ScriptedOptions

    tally = await make_runner(
        backend=Mute(ScriptedBackend("demo", ScriptedOptions())), concurrency=1, seed=3
    ).simulate()
    assert tally.complete == 8
    unusable = [call for call in journal.all_calls() if call.error == "unusable"]
    assert len(unusable) == sum(len(judged) for judged in journal.judgements.values())


async def test_a_used_up_budget_begins_no_call(make_runner, journal):
    runner = make_runner(budget=Budget(tokens=100))
    runner._run.tally.earlier_tokens = 100
    runner._run.tally.check_budget()
    tally = await runner.simulate()
    assert (tally.stop, journal.all_calls()) == ("tokens", [])


class Costly:
    """A backend that is paid for answers which are of no use."""

    from influence_cli.schemas.requests import Capabilities

    capabilities = Capabilities(logprobs=True, seeds=True)

    def __init__(self, usage):
        self.usage = usage

    async def generate(self, request):
        error = CallFailedError("empty", "It only thought.", attempts=3)
        error.usage = self.usage
        raise error

    async def choose(self, request):
        raise AssertionError("nothing was said that could be judged")

    async def aclose(self):
        pass


async def test_what_failed_calls_took_counts_against_the_budget(make_runner, journal):
    from influence_cli.schemas.requests import Usage

    backend = Costly(Usage(prompt_tokens=100, completion_tokens=900))
    price = Price(prompt=1e6, completion=1e6)
    tally = await make_runner(backend=backend, concurrency=1, budget=Budget(cost=2500.0), price=price).simulate()
    assert (tally.stop, tally.failed, tally.tokens, tally.total_cost) == ("cost", 3, 3000, 3000.0)
    assert {(call.requests, call.cost) for call in journal.all_calls()} == {(3, 1000.0)}


async def test_a_judgement_of_no_use_is_paid_for_too(make_runner, journal, script):
    class Vague(ScriptedBackend):
        async def choose(self, request):
            return (await super().choose(request)).model_copy(update={"mass": 0.1, "method": "sampled"})

    backend = Vague("demo", ScriptedOptions())
    await make_runner(backend=backend, n=1, turns=1, price=Price(prompt=1e6, completion=1e6)).simulate()
    unusable = [call for call in journal.all_calls() if call.error == "unusable"]
    assert unusable
    assert all(call.cost == call.prompt_tokens + call.completion_tokens for call in unusable)


def with_messages(tiny, *texts):
    """Return the tiny environment with these messages on coming back."""
    states = tiny.spec.states
    first = states["returned"].messages[0]
    told = tuple(first.model_copy(update={"text": text}) for text in texts)
    returned = states["returned"].model_copy(update={"messages": told})
    spec = tiny.spec.model_copy(update={"states": {**states, "returned": returned}})
    return Environment(spec, list(tiny.scenarios.values()), tiny.digest, tiny.folder)


class LosesPower(MemoryJournal):
    """Stores one message of an entered state, and no more."""

    def __init__(self):
        super().__init__()
        self.told = 0

    def add_message(self, episode_id, call, message):
        self.told += message.source == "scenario"
        if self.told == 2:
            raise InfluenceError("No power.")
        return super().add_message(episode_id, call, message)


async def test_what_was_half_told_on_entering_a_state_is_told_to_its_end(make_runner, script, tiny):
    environment = with_messages(tiny, "A week later.", "It rains.", "The bell rings.")
    model = script(LATER)
    broken, whole = LosesPower(), MemoryJournal()
    with pytest.raises(InfluenceError, match="No power"):
        await make_runner(model=model, environment=environment, n=1, turns=2, into=broken).simulate()
    broken.told = 10
    for journal in (broken, whole):
        await make_runner(model=model, environment=environment, n=1, turns=2, into=journal).simulate()
    assert broken.conversations() == whole.conversations()
    ((messages, _, _),) = whole.conversations().values()
    assert [m.text for m in messages if m.turn and m.source == "scenario"][:3] == [
        "A week later.", "It rains.", "The bell rings."
    ]  # fmt: skip


@pytest.mark.parametrize("method", ["spoken", "judged", "prompt", "outcome", "changes_prompts"])
async def test_a_bug_in_an_environment_fails_its_conversation_only(
    make_runner, journal, monkeypatch, caplog, script, method
):
    from influence_cli.environments.environment import Episode

    original = getattr(Episode, method)

    def buggy(self, *arguments, **named):
        if self.record.key.scenario == "tea" and self.record.key.sample == 0:
            raise KeyError("mine")
        return original(self, *arguments, **named)

    monkeypatch.setattr(Episode, method, buggy)
    model = script(LATER)
    tally = await make_runner(model=model, samples=2, latency=0.001).simulate()
    assert tally.complete + tally.failed == 16
    failed = [end for key, (_, _, end) in journal.conversations().items() if end.status == "failed"]
    assert {(end.failure, end.detail) for end in failed} == {("internal", "KeyError: 'mine'")}
    assert len(failed) == 4
    assert "Traceback" in caplog.text
