"""What a sweep adds up to: the front, the best, and what enters neither."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from influence_cli.errors import UnknownNameError
from influence_cli.schemas.configs import SimulationConfig, TrainConfig
from influence_cli.schemas.sweeps import Objective, Reading, TrialRecord
from influence_cli.sweeps.figures import best, pareto, sweep_document
from influence_cli.sweeps.importance import VarianceImportance
from influence_cli.sweeps.keys import SHORT_NAMES, setting_key
from influence_cli.sweeps.objectives import KINDS, settle_objective
from influence_cli.sweeps.searchers import NoOptions

from .conftest import Toy

MAX, MIN = Objective(name="heldout_reward", direction="maximize"), Objective(name="harm", direction="minimize")


def record(number, *values):
    readings = tuple(Reading(objective="x", value=value, over="nothing") for value in values)
    return TrialRecord(number=number, parameters={}, state="done", readings=readings)


def test_the_front_is_what_no_other_beats():
    trials = [record(0, 5.0, 0.5), record(1, 6.0, 0.6), record(2, 5.5, 0.7), record(3, 6.0, 0.6), record(4, 4.0, 0.1)]
    assert pareto(trials, [MAX, MIN]) == [0, 1, 3, 4]
    assert best(trials, MAX) == 1
    assert best(trials, MIN.model_copy(update={"name": "heldout_reward"})) == 4
    assert best([], MAX) is None


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=12))
def test_every_trial_is_on_the_front_or_beaten_by_one_that_is(points):
    trials = [record(number, float(a), float(b)) for number, (a, b) in enumerate(points)]
    front = pareto(trials, [MAX, MIN])
    assert front
    for number, (a, b) in enumerate(points):
        beaten = any((points[o][0] >= a and points[o][1] <= b and points[o] != (a, b)) for o in front)
        assert (number in front) != beaten


def test_failed_and_pruned_trials_are_shown_and_enter_nothing(make_sweep, have):
    directory = make_sweep(objectives=["heldout_reward", "harm"], max_failed_share=1.0)

    def toy(config):
        value = config.algorithm.options["strength"]
        return Toy(code=2, until=1) if value == 0.4 else Toy(rewards=(5.0, 5.0 + value), veto=value)

    have(directory, toy)
    document = sweep_document(directory, VarianceImportance(NoOptions()), "variance")
    assert document["schema"] == "influence.sweep.show/1"
    assert document["counts"] == {"wanted": None, "done": 3, "pruned": 0, "failed": 1, "running": 0}
    assert document["state"] == "done"
    assert (document["best"], document["pareto"]) == (2, [0, 1, 2])
    assert [trial["pareto"] for trial in document["trials"]] == [True, True, True, False]
    assert document["importance"]["trials"] == 3
    assert document["trials"][3]["reason"].startswith("exit code 2")
    again = document["trials"][2]["again"]
    assert again.startswith("influence train -c ")
    assert again.endswith("--set algorithm.options.strength=0.3 --set seed=7")


def test_a_sweep_that_has_not_begun_is_shown(make_sweep):
    document = sweep_document(make_sweep(), VarianceImportance(NoOptions()), "variance")
    assert (document["trials"], document["best"], document["pareto"], document["state"]) == ([], None, [], "stopped")
    assert document["importance"]["by_objective"] == {"heldout_reward": []}


def test_every_short_name_is_a_setting_of_training():
    for name, key in SHORT_NAMES.items():
        assert setting_key(name, TrainConfig) == key


@pytest.mark.parametrize("key", ["samples", "selection.fraction", "algorithm.options.anything", "roles.agent.model"])
def test_any_setting_can_be_searched_by_its_own_name(key):
    assert setting_key(key, TrainConfig) == key


@pytest.mark.parametrize(
    ("name", "near"), [("sampels", "samples"), ("strenth", "strength"), ("selection.fractoin", "fraction")]
)
def test_an_unknown_setting_is_told_with_the_nearest(name, near):
    with pytest.raises(UnknownNameError, match=f"Did you mean .*{near}"):
        setting_key(name, TrainConfig)


def test_a_simulation_has_no_iterations_to_search():
    with pytest.raises(UnknownNameError):
        setting_key("iterations", SimulationConfig)
    with pytest.raises(UnknownNameError):
        setting_key("lr", SimulationConfig)


def test_objectives_have_their_usual_direction_or_the_one_asked_for():
    assert settle_objective(Objective(name="harm"), "train").direction == "minimize"
    assert settle_objective(Objective(name="harm", direction="maximize"), "train").direction == "maximize"
    for name, kind in KINDS.items():
        assert settle_objective(Objective(name=name), kind.commands[0]).direction == kind.direction
    with pytest.raises(UnknownNameError, match="Did you mean 'heldout_reward'"):
        settle_objective(Objective(name="heldout_rewrad"), "train")
    with pytest.raises(UnknownNameError):
        settle_objective(Objective(name="heldout_reward"), "simulate")
