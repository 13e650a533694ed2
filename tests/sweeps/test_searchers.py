"""Grid and random keep every promise of a searcher."""

import itertools
import math

import pytest

from influence_cli.errors import InfluenceError
from influence_cli.schemas.sweeps import Study
from influence_cli.sweeps.searchers import Grid, NoOptions, Random, grid_points
from influence_cli.testing.searchers import SearcherConformance


def study(space, trials=None, seed=0):
    return Study(name="s", folder=".", seed=seed, space=space, objectives=("heldout_reward:max",), trials=trials)


class TestGrid(SearcherConformance):
    @pytest.fixture
    def make_searcher(self):
        return lambda of: Grid(of, NoOptions())


class TestRandom(SearcherConformance):
    @pytest.fixture
    def make_searcher(self):
        return lambda of: Random(of, NoOptions())


def test_a_grid_has_every_combination_once_the_last_fastest():
    of = study({"a": [1, "x"], "b": "2..4"})
    grid = Grid(of, NoOptions())
    found = [tuple(grid.ask(number).values()) for number in range(6)]
    assert found == list(itertools.product([1, "x"], [2, 3, 4]))
    assert grid.ask(6) is None
    assert grid_points(of) == grid.points == 6


def test_a_grid_over_a_range_is_refused_and_counted_as_endless():
    of = study({"a": [1], "lr": "log(1e-6,1e-4)"})
    assert grid_points(of) is None
    with pytest.raises(InfluenceError, match="A grid cannot hold the range of lr"):
        Grid(of, NoOptions())


def test_a_grid_that_would_never_end_is_refused():
    with pytest.raises(InfluenceError, match="points"):
        Grid(study({"a": "1..1000", "b": "1..1000"}), NoOptions())


def test_random_draws_fill_the_space_and_logarithms_are_even():
    of = study({"lr": "log(1e-6,1e-2)", "x": "uniform(-1,3)", "n": "1..5", "c": ["a", "b"]}, trials=1, seed=4)
    drawn = [Random(of, NoOptions()).ask(number) for number in range(2_000)]
    middle = sum(d["lr"] < 1e-4 for d in drawn) / len(drawn)
    assert 0.45 < middle < 0.55
    assert math.isclose(sum(d["x"] for d in drawn) / len(drawn), 1.0, abs_tol=0.1)
    assert {d["n"] for d in drawn} == {1, 2, 3, 4, 5}
    assert 0.45 < sum(d["c"] == "a" for d in drawn) / len(drawn) < 0.55
    assert all(1e-6 <= d["lr"] <= 1e-2 and -1 <= d["x"] <= 3 for d in drawn)


def test_a_search_at_random_needs_an_end():
    with pytest.raises(InfluenceError, match="--trials"):
        Random(study({"a": [1, 2]}), NoOptions())
