"""PED-ANOVA finds what decides, in the direction that is wanted, and says nothing where there is nothing."""

import pytest

pytest.importorskip("optuna")

from influence_cli.schemas.sweeps import Reading, Study, TrialRecord
from influence_cli.sweeps.searchers import NoOptions, Random
from influence_optuna.importances import PedAnova
from influence_optuna.options import PedAnovaOptions


def measured(value_of, *, trials=80, direction="max"):
    space = {"lr": "log(1e-6,1e-2)", "n": "1..9", "mix": [[1], {"a": 2}], "fixed": ["x"]}
    study = Study(name="s", folder=".", seed=1, space=space, objectives=(f"heldout_reward:{direction}",), trials=trials)
    drawn = Random(study, NoOptions())
    records = []
    for number in range(trials):
        parameters = drawn.ask(number)
        reading = Reading(objective="heldout_reward", value=value_of(parameters), over="nothing")
        records.append(TrialRecord(number=number, parameters=parameters, state="done", readings=(reading,)))
    return PedAnova(PedAnovaOptions()).measure(study, records, 0)


@pytest.mark.parametrize("direction", ["max", "min"])
def test_what_decides_has_the_largest_share(direction):
    shares = measured(lambda p: float(p["n"]), direction=direction)
    assert max(shares, key=shares.get) == "n"
    assert shares["n"] > 0.5
    assert sum(shares.values()) == pytest.approx(1.0)
    assert shares["fixed"] == 0.0


def test_lists_and_mappings_can_decide():
    shares = measured(lambda p: 1.0 if p["mix"] == [1] else 0.0)
    assert shares["mix"] > 0.3


def test_few_trials_and_equal_ones_tell_nothing():
    assert measured(lambda p: float(p["n"]), trials=3) == {}
    assert measured(lambda p: 1.0) == {}
