"""Many conversations: complete, independent, stopped when they must be and gone on with."""

import asyncio
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from influence_cli.backends.names import parse_model_name
from influence_cli.backends.scripted import ScriptedBackend, ScriptedOptions
from influence_cli.environments.environment import Environment
from influence_cli.errors import InfluenceError
from influence_cli.schemas.configs import SimulationConfig
from influence_cli.simulation.calls import Run
from influence_cli.simulation.models import RoleModel
from influence_cli.simulation.runner import Runner, start_tally

from .conftest import LATER, ROLES, MemoryJournal


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


async def test_ratings_are_expected_values(make_runner, journal, script):
    model = script("choices: [{role: preference, weights: {'10': 1, '8': 1}}, {role: veto, weights: {'1': 1, '0': 3}}]")
    tally = await make_runner(model=model, turns=1).simulate()
    assert {(end.mean_rating, end.final_rating, end.mean_veto) for end in journal.ends.values()} == {(9.0, 9.0, 0.25)}
    assert tally.rating_sum / tally.ratings == 9.0


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
