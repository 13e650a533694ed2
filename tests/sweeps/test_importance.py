"""The share of variance that a parameter explains: all of it, none of it, and by rank on a range."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from influence_cli.schemas.sweeps import Reading, Study, TrialRecord
from influence_cli.seeding import unit_draw
from influence_cli.sweeps.importance import VarianceImportance
from influence_cli.sweeps.searchers import NoOptions, Random

SPACE = {"lr": "log(1e-6,1e-2)", "n": [1, 2, 4], "noise": ["a", "b"]}


def sweep(value_of, trials=60, space=SPACE):
    study = Study(name="s", folder=".", seed=1, space=space, objectives=("heldout_reward:max",), trials=trials)
    searcher = Random(study, NoOptions())
    records = []
    for number in range(trials):
        parameters = searcher.ask(number)
        reading = Reading(objective="heldout_reward", value=value_of(number, parameters), over="nothing")
        records.append(TrialRecord(number=number, parameters=parameters, state="done", readings=(reading,)))
    return VarianceImportance(NoOptions()).measure(study, records, 0)


def test_what_decides_alone_has_the_whole():
    shares = sweep(lambda number, parameters: float(parameters["n"]))
    assert shares["n"] > 0.9
    assert sum(shares.values()) == pytest.approx(1.0)


def test_a_range_counts_by_rank():
    shares = sweep(lambda number, parameters: parameters["lr"])
    assert shares["lr"] > 0.8


def test_two_that_decide_share():
    shares = sweep(lambda number, p: 2.0 * p["n"] + (3.0 if p["noise"] == "a" else 0.0))
    assert shares["n"] > shares["noise"] > 0.1
    assert shares["lr"] < 0.1


def test_where_nothing_decides_nothing_is_told():
    assert sweep(lambda number, parameters: 1.0) == {}


def test_noise_explains_nearly_nothing_of_what_chance_alone_makes():
    raw = [
        sum(
            sweep(lambda number, p, s=seed: unit_draw(s, number) + 5.0 * (p["n"] == 1)).get(k, 0.0)
            for k in ("lr", "noise")
        )
        for seed in range(5)
    ]
    assert sum(raw) / len(raw) < 0.1


@given(st.lists(st.floats(-1e6, 1e6), min_size=0, max_size=12))
def test_shares_are_none_or_sum_to_one(values):
    shares = sweep(lambda number, parameters: values[number], trials=len(values)) if values else {}
    assert not shares or sum(shares.values()) == pytest.approx(1.0)
    assert all(share >= 0.0 for share in shares.values())
