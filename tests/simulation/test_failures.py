"""What fails in a conversation: it is recorded with its reason, enters no figure, and leaves the others alone."""

from collections import Counter

import pytest

from influence_cli.backends.scripted import ScriptedBackend, ScriptedOptions
from influence_cli.environments.environment import Episode
from influence_cli.errors import CallFailedError, InfluenceError
from influence_cli.schemas.requests import Capabilities

from .conftest import LATER, MemoryJournal


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


async def test_empty_replies_are_failures(make_runner, journal, script):
    tally = await make_runner(model=script("replies: [{role: agent, texts: ['  ']}]"), stop_after_alike=99).simulate()
    assert tally.failures == Counter({("agent", "empty"): 8})
    assert {call.error for call in journal.all_calls()} == {"empty"}


class Mute:
    """A backend whose first look at every judgement finds no choice at all."""

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
    tally = await make_runner(
        backend=Mute(ScriptedBackend("demo", ScriptedOptions())), concurrency=1, seed=3
    ).simulate()
    assert tally.complete == 8
    unusable = [call for call in journal.all_calls() if call.error == "unusable"]
    assert len(unusable) == sum(len(judged) for judged in journal.judgements.values())


class Exploding:
    """A backend with a bug."""

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


@pytest.mark.parametrize("method", ["spoken", "judged", "prompt", "outcome", "changes_prompts"])
async def test_a_bug_in_an_environment_fails_its_conversation_only(
    make_runner, journal, monkeypatch, caplog, script, method
):
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


class FullDisk(MemoryJournal):
    def add_judgement(self, episode_id, call, judgement):
        raise InfluenceError("The disk is full.")


async def test_a_store_that_fails_ends_the_run_with_its_reason(make_runner):
    runner = make_runner(into=FullDisk(), latency=0.001)
    with pytest.raises(InfluenceError, match="The disk is full"):
        await runner.simulate()
    assert runner._run.tally.stop == "error"
