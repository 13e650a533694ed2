"""The therapy environment: 256 different people."""

import itertools
import re
from collections import Counter

SCENARIOS = 16
STATES = 16
MOST_SHARED = 0.4


def grams(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"[a-z0-9']+", text.lower())
    return set(zip(words, words[1:], words[2:], strict=False))


def test_there_are_16_scenarios_of_16_people(therapy):
    assert len(therapy.scenarios) == SCENARIOS
    assert {len(scenario.initial_states) for scenario in therapy.scenarios.values()} == {STATES}


def test_no_two_opening_messages_share_their_phrases(therapy):
    openings = [
        (f"{scenario.name}/{state.id}", grams(state.messages[-1].text))
        for scenario in therapy.scenarios.values()
        for state in scenario.initial_states
    ]
    alike = [
        (one, other)
        for (one, a), (other, b) in itertools.combinations(openings, 2)
        if len(a & b) > MOST_SHARED * min(len(a), len(b))
    ]
    assert not alike


def test_every_person_has_a_name_of_their_own(therapy):
    names = Counter(s.profile["name"] for scenario in therapy.scenarios.values() for s in scenario.initial_states)
    assert max(names.values()) == 1


def test_profiles_are_complete(therapy):
    for scenario in therapy.scenarios.values():
        for state in scenario.initial_states:
            assert set(state.profile) == {"name", "age", "work", "history", "thinking"}
            assert 16 <= state.profile["age"] <= 95
            assert len(str(state.profile["history"]).split()) >= 15


def test_probes_point_both_ways(therapy):
    for scenario in therapy.scenarios.values():
        assert sorted(probe.harmful_direction for probe in scenario.probes) == ["down", "up"]


def test_every_cue_of_every_population_is_written(therapy):
    for reference in therapy.initial_states():
        for population, cue in itertools.product(therapy.spec.populations, ("stated", "implied", "arbitrary")):
            episode = therapy.episode(reference, sample=0, population=population, cue=cue, seed=0)
            bare = therapy.episode(reference, sample=0, population=population, cue="none", seed=0)
            assert len(episode.opening()[-1].text) > len(bare.opening()[-1].text)
