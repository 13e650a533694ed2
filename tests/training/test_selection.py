"""Selection is a pure function with the properties that training relies on."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from influence_cli.errors import InfluenceError
from influence_cli.schemas.configs import SelectionConfig
from influence_cli.training.selection import Candidate, select

rewards = st.one_of(st.integers(1, 4).map(float), st.floats(1.0, 10.0, allow_nan=False))


@st.composite
def crowds(draw):
    """Conversations of two environments, each with two scenarios of two initial states."""
    crowd = []
    for environment in "ab":
        for scenario in "cd":
            for state in "ef":
                for sample in range(draw(st.integers(0, 6))):
                    crowd.append(
                        Candidate(
                            episode_id=len(crowd) + 1,
                            environment=environment,
                            scenario=scenario,
                            initial_state=state,
                            sample=sample,
                            population=draw(st.sampled_from([None, "gameable", "resilient"])),
                            reward=draw(rewards),
                            veto=draw(st.one_of(st.none(), st.floats(0.0, 1.0))),
                        )
                    )
    return crowd


configs = st.builds(
    SelectionConfig,
    level=st.sampled_from(["initial-state", "scenario", "environment"]),
    fraction=st.floats(0.01, 1.0),
    count=st.one_of(st.none(), st.integers(1, 4)),
    veto_level=st.one_of(st.none(), st.floats(0.0, 1.0)),
    vetoed_as_negatives=st.booleans(),
    minimum_spread=st.sampled_from([0.0, 0.5, 3.0]),
    how=st.sampled_from(["reward", "random"]),
)
wants = st.sampled_from(["best", "best-and-worst", "pairs"])


def chosen(crowd, config, wanted, seed=0):
    try:
        return select(crowd, config, wants=wanted, seed=seed)
    except InfluenceError as error:
        assert "\n" not in str(error)
        assert error.hint
        return None


@given(crowds(), configs, wants)
def test_nothing_is_best_and_worst_and_nothing_is_taken_twice(crowd, config, wanted):
    found = chosen(crowd, config, wanted)
    if found:
        taken = [each.episode_id for each in (*found.best, *found.worst)]
        assert len(taken) == len(set(taken))


@given(crowds(), configs, wants)
def test_the_order_of_the_list_does_not_matter(crowd, config, wanted):
    shuffled = random.Random(0).sample(crowd, len(crowd))
    assert chosen(crowd, config, wanted) == chosen(shuffled, config, wanted)


@given(crowds(), configs, wants)
def test_none_of_the_best_is_vetoed_and_worst_ones_only_if_allowed(crowd, config, wanted):
    found = chosen(crowd, config, wanted)
    if found is None or config.veto_level is None:
        return
    assert all(each.veto is None or each.veto < config.veto_level for each in found.best)
    if not config.vetoed_as_negatives:
        assert all(each.veto is None or each.veto < config.veto_level for each in found.worst)


@given(crowds(), configs.filter(lambda c: c.how == "reward"), wants.filter(lambda w: w != "best"))
def test_in_a_group_all_of_the_best_are_better_than_all_of_the_worst_by_the_spread(crowd, config, wanted):
    found = chosen(crowd, config, wanted)
    for group in found.groups if found else ():
        gap = min(each.reward for each in group.best) - max(each.reward for each in group.worst)
        assert gap > 0.0
        assert gap >= config.minimum_spread


@given(crowds(), configs.filter(lambda c: c.how == "reward" and c.veto_level is None))
def test_whoever_is_left_out_is_no_better_than_the_best(crowd, config):
    found = chosen(crowd, config, "best")
    for group in found.groups if found else ():
        key = group.best[0].group(config.level)
        taken = {each.episode_id for each in group.best}
        left = [each.reward for each in crowd if each.group(config.level) == key and each.episode_id not in taken]
        assert left
        assert max(left, default=0.0) <= min(each.reward for each in group.best)


@given(crowds(), configs)
def test_a_group_gives_at_most_its_share_rounded_up(crowd, config):
    found = chosen(crowd, config, "best-and-worst")
    for group in found.groups if found else ():
        size = sum(each.group(config.level) == group.best[0].group(config.level) for each in crowd)
        most = config.count if config.count is not None else int(size * config.fraction) + 1
        assert 1 <= len(group.best) <= most
        assert 1 <= len(group.worst) <= most


@given(crowds(), st.integers(0, 5))
def test_a_random_selection_does_not_look_at_rewards(crowd, seed):
    config = SelectionConfig(how="random", fraction=0.5, veto_level=None)
    other = [Candidate(**{**vars(each), "reward": 11.0 - each.reward}) for each in crowd]
    first, second = chosen(crowd, config, "best-and-worst", seed), chosen(other, config, "best-and-worst", seed)
    assert (first is None) == (second is None)
    if first and second:
        assert [e.episode_id for e in first.best] == [e.episode_id for e in second.best]
        assert [e.episode_id for e in first.worst] == [e.episode_id for e in second.worst]


@given(crowds(), st.integers(0, 3))
def test_pairs_are_of_one_initial_state_and_one_kind_of_user(crowd, seed):
    found = chosen(crowd, SelectionConfig(level="environment", fraction=0.5, veto_level=None), "pairs", seed)
    for group in found.groups if found else ():
        assert len({each.group("initial-state") for each in (*group.best, *group.worst)}) == 1


def crowd(*values, veto=0.0, scenario="s", state="i"):
    return [Candidate(i, "e", scenario, state, i, None, float(v), veto) for i, v in enumerate(values)]


def numbers(candidates):
    return [each.episode_id for each in candidates]


def test_a_sixteenth_of_sixteen_is_one_best_and_one_worst():
    found = select(crowd(*range(1, 17)), SelectionConfig(fraction="1/16"), wants="best-and-worst", seed=0)
    assert (numbers(found.best), numbers(found.worst)) == ([15], [0])


def test_best_of_n_takes_that_many():
    found = select(crowd(3, 9, 4, 8), SelectionConfig(count=2), wants="best", seed=0)
    assert (numbers(found.best), found.worst) == ([1, 3], ())


def test_ties_are_broken_by_a_hash_and_alike_each_time():
    tied = crowd(5, 5, 5, 5, 5, 5, 5, 1)
    picks = {tuple(numbers(select(tied, SelectionConfig(), wants="best", seed=seed).best)) for seed in range(40)}
    assert len(picks) > 3
    assert numbers(select(tied, SelectionConfig(), wants="best", seed=7).best) == numbers(
        select(tied[::-1], SelectionConfig(), wants="best", seed=7).best
    )


def test_near_equal_rewards_are_not_called_best_and_worst():
    near = SelectionConfig(fraction=0.5, minimum_spread=1.0)
    found = select(crowd(9.0, 5.2, 5.0, 1.0), near, wants="best-and-worst", seed=0)
    assert (numbers(found.best), numbers(found.worst)) == ([0], [3])


def test_vetoed_ones_may_be_among_the_worst_if_allowed():
    two = [*crowd(9, 8, 7), Candidate(9, "e", "s", "i", 9, None, 1.0, 0.9)]
    allowed = SelectionConfig(vetoed_as_negatives=True)
    assert numbers(select(two, allowed, wants="best-and-worst", seed=0).worst) == [9]
    assert numbers(select(two, SelectionConfig(), wants="best-and-worst", seed=0).worst) == [2]
    assert select(two, SelectionConfig(), wants="best", seed=0).vetoed == 1


def test_a_group_that_gives_nothing_is_counted_by_its_reason():
    mixed = [
        *crowd(1, 9, state="good"),
        *crowd(5, state="alone"),
        *crowd(5, 5, state="alike"),
        *crowd(1, 9, veto=0.9, state="vetoed"),
    ]
    mixed = [Candidate(**{**vars(each), "episode_id": number}) for number, each in enumerate(mixed)]
    found = select(mixed, SelectionConfig(), wants="best", seed=0)
    assert found.empty == {"alone": 1, "alike": 1, "vetoed": 1}


@pytest.mark.parametrize(
    ("candidates", "config", "said"),
    [
        ([], {}, "Too few to select from: 0 rated conversations. Raise --n or --samples."),
        (crowd(5), {}, "Too few to select from: 1 rated conversation. Raise --n or --samples."),
        (crowd(5, 5, 5), {}, "All 3 rated conversations have the same reward (5): nothing is better than anything."),
        (crowd(5, 6, veto=0.7), {}, "All 2 rated conversations are vetoed: none has a mean veto below 0.5."),
        (crowd(5, 6), {"minimum_spread": 2}, "In no group of 2 rated conversations do rewards differ by 2 or more."),
        (
            [*crowd(1, state="a"), *crowd(9, state="b")],
            {},
            "No group by initial-state holds two conversations to compare, among 2 rated conversations.",
        ),
    ],
)
def test_what_cannot_be_selected_from_is_told_in_one_line(candidates, config, said):
    with pytest.raises(InfluenceError) as error:
        select(candidates, SelectionConfig(**config), wants="best", seed=0)
    assert str(error.value).startswith(said)


@pytest.mark.parametrize(("text", "value"), [("1/16", 0.0625), ("3 / 4", 0.75), (0.2, 0.2), ("0.5", 0.5)])
def test_a_share_may_be_a_fraction(text, value):
    assert SelectionConfig(fraction=text).fraction == value


@pytest.mark.parametrize("text", ["a/b", "1/0", "0", "3/2"])
def test_a_share_that_is_none_is_refused(text):
    with pytest.raises(ValidationError):
        SelectionConfig(fraction=text)


ALONE = [*crowd(1, scenario="s", state="a"), *crowd(9, scenario="t", state="b")]
ALIKE = [*crowd(1, 1, state="a"), *crowd(9, 9, state="b")]


@pytest.mark.parametrize(
    ("candidates", "level", "wants", "hint"),
    [
        (ALONE, "initial-state", "best", "Raise --samples, or compare more widely: selection.level=scenario."),
        (ALONE, "scenario", "best", "Raise --samples, or compare more widely: selection.level=environment."),
        (ALONE, "initial-state", "pairs", "Raise --samples."),
        (
            ALIKE,
            "initial-state",
            "best",
            "Ask another preference model, or compare more widely: selection.level=scenario.",
        ),
        (ALIKE, "initial-state", "pairs", "Ask another preference model."),
    ],
)
def test_the_mend_that_is_told_is_one(candidates, level, wants, hint):
    with pytest.raises(InfluenceError) as error:
        select(candidates, SelectionConfig(level=level), wants=wants, seed=0)
    assert str(error.value).endswith(hint)
    assert "differ by 0" not in str(error.value)
