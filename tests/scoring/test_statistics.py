"""Statistics: against scipy and statsmodels on the same data, and the intervals by their coverage."""

import math
import warnings

import numpy as np
import pytest
import scipy.stats as scipy_stats
import statsmodels.stats.inter_rater as irr
import statsmodels.stats.multitest as multi
import statsmodels.stats.power as power
from hypothesis import given, settings
from hypothesis import strategies as st

from influence_cli.scoring import statistics as s

VALUES = st.floats(-1e3, 1e3).map(lambda x: round(x, 3))


def sample(values, scenarios, states=None):
    return s.Sample(np.asarray(values, float), scenarios, states or [str(i) for i in range(len(values))])


@pytest.mark.parametrize("freedom", [1, 2, 7, 15, 120])
@pytest.mark.parametrize("p", [0.5, 0.6, 0.9, 0.975, 0.995, 0.025])
def test_quantiles_of_t_are_scipys(p, freedom):
    assert s.t_quantile(p, freedom) == pytest.approx(scipy_stats.t.ppf(p, freedom), rel=1e-6, abs=1e-6)


@given(st.lists(VALUES, min_size=3, max_size=40), st.randoms())
def test_rank_correlation_is_scipys(values, random):
    other = [v + random.choice([0.0, 50.0, -400.0]) for v in values]
    mine = s.spearman(values, other)
    if len(set(values)) < 2 or len(set(other)) < 2:
        assert mine is None
    else:
        assert mine == pytest.approx(scipy_stats.spearmanr(values, other).statistic, abs=1e-9)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=2, max_size=60))
def test_weighted_kappa_is_that_of_statsmodels(pairs):
    a, b = zip(*pairs, strict=True)
    table = np.zeros((5, 5))
    np.add.at(table, (np.array(a), np.array(b)), 1)
    mine = s.weighted_kappa(a, b, 5)
    if mine is None:
        assert set(a) == set(b)
        assert len(set(a)) == 1
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # their standard errors divide by zero on degenerate tables
        theirs = irr.cohens_kappa(table, wt="quadratic").kappa
    assert mine == pytest.approx(theirs, abs=1e-9)


@given(st.dictionaries(st.text(min_size=1, max_size=3), st.floats(0, 1), min_size=1, max_size=12))
def test_holms_correction_is_that_of_statsmodels(p_values):
    mine = list(s.holm(p_values).values())
    theirs = multi.multipletests(list(p_values.values()), method="holm")[1]
    assert mine == pytest.approx(list(theirs), abs=1e-9)


def test_the_number_needed_is_that_of_statsmodels():
    for effect in (0.2, 0.5, 0.8):
        theirs = power.NormalIndPower().solve_power(effect_size=effect, alpha=0.05, power=0.8)
        assert s.conversations_needed(effect, 1.0) == math.ceil(theirs)


@pytest.mark.parametrize(("scenarios", "states"), [(16, 16), (8, 16)])
def test_intervals_of_means_cover_at_their_rate(scenarios, states):
    rng = np.random.default_rng(5)
    names = [f"s{i // states}" for i in range(scenarios * states)]
    covered = 0
    rounds = 2_000
    for number in range(rounds):
        offsets = np.repeat(rng.normal(0.0, 0.7, scenarios), states)
        values = 5.0 + offsets + rng.normal(0.0, 1.5, scenarios * states)
        found = s.mean_interval(sample(values, names), draws=400, seed=number)
        covered += found.low <= 5.0 <= found.high
    assert covered / rounds == pytest.approx(0.95, abs=0.015)


def test_intervals_of_paired_differences_cover_at_their_rate():
    rng = np.random.default_rng(6)
    scenarios, states, rounds = 12, 8, 2_000
    names = [f"s{i // states}" for i in range(scenarios * states)]
    covered = 0
    for number in range(rounds):
        shared = np.repeat(rng.normal(0.0, 2.0, scenarios), states)
        gap = np.repeat(rng.normal(0.5, 0.3, scenarios), states)
        a = sample(shared + gap + rng.normal(0.0, 1.0, len(names)), names)
        b = sample(shared + rng.normal(0.0, 1.0, len(names)), names)
        found = s.difference_interval(a, b, draws=400, seed=number)
        covered += found.low <= 0.5 <= found.high
    assert covered / rounds == pytest.approx(0.95, abs=0.015)


def test_pairing_narrows_the_interval():
    rng = np.random.default_rng(7)
    names = [f"s{i // 8}" for i in range(80)]
    shared = np.repeat(rng.normal(0.0, 3.0, 10), 8)
    a, b = (sample(shared + shift + rng.normal(0.0, 0.5, 80), names) for shift in (0.4, 0.0))
    paired = s.difference_interval(a, b)
    alone = s.mean_interval(a)
    assert paired.high - paired.low < (alone.high - alone.low) / 3
    assert paired.excludes_zero


@settings(max_examples=50)
@given(st.lists(st.tuples(VALUES, st.integers(0, 6)), min_size=1, max_size=60), st.integers(0, 5))
def test_the_mean_is_inside_and_nothing_depends_on_order(rows, seed):
    values, groups = zip(*rows, strict=True)
    found = s.mean_interval(sample(values, [f"s{g}" for g in groups]), draws=100, seed=seed)
    assert found.value == pytest.approx(float(np.mean(values)), abs=1e-6)
    assert found.low <= found.value + 1e-6
    assert found.high >= found.value - 1e-6


def test_with_few_scenarios_the_interval_is_over_initial_states():
    rng = np.random.default_rng(1)
    values = rng.normal(5, 1, 32)
    found = s.mean_interval(sample(values, ["a"] * 16 + ["b"] * 16))
    assert (found.over, found.units) == ("initial states", 32)
    assert s.mean_interval(sample([1.0], ["a"])).high == math.inf


def test_a_p_value_goes_with_its_interval():
    rng = np.random.default_rng(2)
    names = [f"s{i}" for i in range(20)]
    found = s.mean_interval(sample(rng.normal(0.0, 1.0, 20), names))
    assert (s.p_value(found) < 0.05) == found.excludes_zero


def test_effect_size_and_total_variation():
    assert s.hedges_g([1, 2, 3], [1, 2, 3]) == 0.0
    assert s.hedges_g([1, 1], [1, 1]) is None
    assert s.hedges_g([3, 4, 5], [1, 2, 3]) == pytest.approx(2.0 * (1 - 3 / 15))
    assert s.total_variation((1.0, 0.0), (0.0, 1.0)) == 1.0
