"""95 % intervals hold the truth in 95 % of draws, for data as the reports meet them."""

import importlib.util
import json

import pytest

CASES = (
    "mean, 5 scenarios",
    "mean, 12 scenarios x 4 states",
    "ratings near the top, 12 scenarios",
    "share of yes, 16 scenarios",
    "mean, 4 fixed scenarios x 20 states",
    "targeting gap, 6 scenarios",
    "targeting gap, 12 scenarios of unequal size",
    "paired runs, 12 scenarios",
)


@pytest.fixture(scope="module")
def simulation(repository):
    spec = importlib.util.spec_from_file_location(
        "coverage_simulation", repository / "benchmarks" / "interval_coverage.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_intervals_cover_at_their_rate(simulation, case):
    assert simulation.coverage(case) == pytest.approx(0.95, abs=0.015)


def test_the_committed_figures_are_of_every_case_and_within_bounds(simulation, repository):
    figures = json.loads((repository / "benchmarks" / "results" / "interval_coverage.json").read_text())
    assert set(figures["coverage"]) == set(simulation.CASES)
    assert figures["rounds"] == 2_000
    assert all(abs(share - 0.95) <= 0.015 for share in figures["coverage"].values())
