"""Which conversations a run holds."""

from collections import Counter
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from influence_cli.environments.sampling import count_episodes, episodes, pick_population, van_der_corput
from influence_cli.errors import InfluenceError
from influence_cli.schemas.configs import SimulationConfig


def keys(environments, **settings):
    return [episode.record for episode in episodes(environments, SimulationConfig(**settings))]


def test_a_whole_pass_uses_each_of_the_256_therapy_states_once(therapy):
    records = keys([therapy], n=256)
    assert len({(r.key.scenario, r.key.initial_state) for r in records}) == 256
    assert Counter(r.key.sample for r in records) == {0: 256}
    assert Counter(r.population for r in records) == {"gameable": 128, "resilient": 128}


def test_every_beginning_is_balanced_over_scenarios(therapy):
    records = keys([therapy], n=32)
    assert set(Counter(r.key.scenario for r in records).values()) == {2}
    assert Counter(r.population for r in records) == {"gameable": 16, "resilient": 16}


def test_scenarios_and_populations_are_not_confounded(therapy):
    counts = Counter((r.key.scenario, r.population) for r in keys([therapy]))
    assert set(counts.values()) == {8}


def test_samples_of_one_state_meet_every_population(tiny):
    by_state: dict[tuple[str, str], Counter[str]] = {}
    for record in keys([tiny], samples=4):
        by_state.setdefault((record.key.scenario, record.key.initial_state), Counter())[record.population] += 1
    assert len(by_state) == 8
    assert all(counts == {"gameable": 2, "resilient": 2} for counts in by_state.values())


def test_more_conversations_than_states_continue_with_new_samples(tiny):
    records = keys([tiny], n=20)
    assert len({(r.key.scenario, r.key.initial_state, r.key.sample) for r in records}) == 20
    assert max(r.key.sample for r in records) == 2


def test_a_smaller_run_is_the_beginning_of_a_larger_one(tiny):
    assert keys([tiny], n=5) == keys([tiny], n=20)[:5]


def test_another_seed_is_another_order(tiny):
    assert keys([tiny], seed=1) != keys([tiny], seed=2)


def test_a_million_conversations_are_not_held(tiny):
    config = SimulationConfig(n=1_000_000)
    assert count_episodes([tiny], config) == 1_000_000
    assert len(list(islice(episodes([tiny], config), 3))) == 3


def test_environments_take_turns(tiny, therapy):
    names = [r.key.environment for r in keys([tiny, therapy], n=6)]
    assert names == ["tiny", "therapy"] * 3


def test_a_scenario_selects_the_environments_that_have_it(tiny, therapy):
    records = keys([tiny, therapy], scenarios=("coffee",), n=3)
    assert {r.key.scenario for r in records} == {"coffee"}
    assert count_episodes([tiny, therapy], SimulationConfig(scenarios=("coffee",))) == len(
        keys([tiny, therapy], scenarios=("coffee",))
    )


def test_an_unknown_scenario_is_refused(tiny, therapy):
    with pytest.raises(InfluenceError, match="Did you mean 'coffee'"):
        keys([tiny, therapy], scenarios=("cofee",))


def test_splits_divide_the_states(therapy):
    train, heldout = keys([therapy], split="train"), keys([therapy], split="heldout")
    assert len(train) + len(heldout) == 256
    assert 40 <= len(heldout) <= 90
    assert {r.split for r in heldout} == {"heldout"}


def test_a_mix_can_be_overridden(tiny):
    assert Counter(r.population for r in keys([tiny], populations={"resilient": 1.0})) == {"resilient": 8}


@given(st.integers(0, 2**40))
def test_points_of_the_sequence_lie_in_the_unit_interval(index):
    assert 0.0 <= van_der_corput(index) < 1.0


@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.integers(1, 9))
def test_shares_are_kept_within_one_in_every_beginning_of_whole_blocks(weights, bits):
    mix = {f"p{i}": weight / sum(weights) for i, weight in enumerate(weights)}
    n = 2**bits
    counts = Counter(pick_population(mix, van_der_corput(i)) for i in range(n))
    for name, share in mix.items():
        assert abs(counts[name] - share * n) <= 1.0 + 1e-9


@given(st.floats(0, 100))
def test_a_population_with_no_share_is_never_picked(position):
    assert pick_population({"a": 0.0, "b": 1.0, "c": 0.0}, position) == "b"
