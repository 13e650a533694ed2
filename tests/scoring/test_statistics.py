"""Statistics: against scipy and statsmodels on the same data, and the intervals by their coverage."""

import math
import warnings

import numpy as np
import pytest
import scipy.stats as scipy_stats
import statsmodels.api as sm
import statsmodels.stats.inter_rater as irr
import statsmodels.stats.multitest as multi
import statsmodels.stats.power as power
from hypothesis import given, settings
from hypothesis import strategies as st

from influence_cli.scoring import statistics as s

VALUES = st.floats(-1e3, 1e3).map(lambda x: round(x, 3))


def sample(values, scenarios, states=None):
    return s.Sample.named(values, scenarios, states or [str(i) for i in range(len(values))])


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


@pytest.mark.parametrize("shift", [0.0, 0.3, 1.5])
def test_means_of_independent_values_agree_with_the_t_test(shift):
    rng = np.random.default_rng(2)
    values = rng.normal(shift, 1.0, 60)
    found = s.mean_interval(sample(values, [f"s{i}" for i in range(60)]))
    theirs = scipy_stats.ttest_1samp(values, 0.0)
    limits = theirs.confidence_interval(0.95)
    assert found.error == pytest.approx(values.std(ddof=1) / math.sqrt(60), rel=0.05)
    assert (found.low, found.high) == pytest.approx((limits.low, limits.high), abs=0.05)
    assert s.p_value(found) == pytest.approx(theirs.pvalue, abs=0.03)


def test_clustered_errors_agree_with_those_of_statsmodels():
    rng = np.random.default_rng(4)
    scenario = np.repeat(np.arange(40), 6)
    values = 3.0 + rng.normal(0, 1.0, 40)[scenario] + rng.normal(0, 0.5, 240)
    found = s.mean_interval(s.Sample(values, scenario, np.arange(240)))
    theirs = sm.OLS(values, np.ones(240)).fit(cov_type="cluster", cov_kwds={"groups": scenario})
    assert found.error == pytest.approx(float(theirs.bse[0]), rel=0.06)
    assert found.value == pytest.approx(float(theirs.params[0]))


def test_a_paired_difference_agrees_with_the_paired_t_test():
    rng = np.random.default_rng(8)
    scenario = np.arange(50)
    a, b = rng.normal(0.5, 1.0, 50), rng.normal(0.0, 1.0, 50)
    found = s.difference_interval(s.Sample(a, scenario, scenario), s.Sample(b, scenario, scenario))
    theirs = scipy_stats.ttest_rel(a, b)
    assert found.value == pytest.approx(float((a - b).mean()))
    assert s.p_value(found) == pytest.approx(theirs.pvalue, abs=0.03)


def test_states_of_few_scenarios_are_resampled_within_them():
    offsets = np.repeat([-5.0, 0.0, 5.0], 30)
    values = offsets + np.random.default_rng(3).normal(0.0, 1.0, 90)
    found = s.mean_interval(s.Sample(values, np.repeat(np.arange(3), 30), np.arange(90)))
    assert found.error == pytest.approx(1.0 / math.sqrt(90), rel=0.25)  # not the far larger spread between scenarios
    assert found.freedom == 87


def test_a_scenario_of_one_state_makes_one_stratum():
    values = np.array([1.0, 2.0, 3.0, 9.0])
    found = s.mean_interval(s.Sample(values, np.array([0, 0, 0, 1]), np.arange(4)))
    assert (found.units, found.freedom) == (4, 3)


def test_very_many_states_are_joined_and_the_error_stays():
    values = np.random.default_rng(3).normal(0.0, 1.0, 20_000)
    found = s.mean_interval(s.Sample(values, np.zeros(20_000, int), np.arange(20_000)))
    assert found.units == 512
    assert found.error == pytest.approx(1.0 / math.sqrt(20_000), rel=0.1)


def test_what_cannot_be_known_is_not_claimed():
    alone = s.mean_interval(sample([1.0], ["a"]))
    assert (alone.low, alone.high, s.p_value(alone)) == (-math.inf, math.inf, None)
    assert s.design_effect(alone, 1.0) == 1.0
    one = sample([1.0], ["a"])
    assert s.difference_interval(one, one).high == math.inf
    same = s.mean_interval(sample([2.0] * 6, list("abcdef")))
    assert (same.low, same.high, s.p_value(same)) == (2.0, 2.0, 0.0)
    nearly = s.difference_interval(sample([0.1 + 0.2] * 6, list("abcdef")), sample([0.3] * 6, list("abcdef")))
    assert s.p_value(nearly) == 1.0, "rounding is no difference"
    for call in (s.mean_interval, lambda e: s.difference_interval(e, e)):
        with pytest.raises(ValueError, match="empty"):
            call(sample([], []))


def test_the_design_effect_counts_what_clusters_share():
    scenario = np.repeat(np.arange(20), 10)
    values = np.random.default_rng(1).normal(0.0, 1.0, 20)[scenario]
    spread = float(values.std(ddof=1))
    effect = s.design_effect(s.mean_interval(s.Sample(values, scenario, np.arange(200))), spread)
    assert effect == pytest.approx(10.0, rel=0.15)
    assert s.conversations_needed(0.5, 1.0, design=2.0) == 2 * s.conversations_needed(0.5, 1.0)
    assert s.conversations_needed(0.0, 1.0) is None
    assert s.conversations_needed(0.5, 0.0) is None


def test_effect_size_and_total_variation():
    assert s.hedges_g([1, 2, 3], [1, 2, 3]) == 0.0
    assert s.hedges_g([1, 1], [1, 1]) is None
    assert s.hedges_g([3, 4, 5], [1, 2, 3]) == pytest.approx(2.0 * (1 - 3 / 15))
    assert s.hedges_g([0.1 + 0.2, 0.3], [0.3, 0.1 + 0.2]) is None, "rounding is no spread"
    assert s.standardised([1.0, 1.0, 1.0]) is None
    assert s.standardised([1.0, 2.0]) is None
    assert s.standardised([1.0, 2.0, 3.0]) == pytest.approx(2.0 * (1 - 3 / 7))
    assert s.total_variation((1.0, 0.0), (0.0, 1.0)) == 1.0


ROWS = st.lists(st.tuples(VALUES, st.integers(0, 7), st.integers(0, 3)), min_size=2, max_size=60)


def made(rows):
    values, scenarios, states = zip(*rows, strict=True)
    return s.Sample(np.array(values), np.array(scenarios), np.array(scenarios) * 4 + np.array(states))


@settings(max_examples=60)
@given(ROWS, st.floats(-50, 50), st.floats(0.1, 20))
def test_intervals_move_and_stretch_with_their_values(rows, shift, stretch):
    before = made(rows)
    after = s.Sample(before.values * stretch + shift, before.scenarios, before.states)
    a, b = s.mean_interval(before, draws=60), s.mean_interval(after, draws=60)
    assert b.value == pytest.approx(a.value * stretch + shift, abs=1e-6)
    if a.freedom:
        assert (b.low, b.high) == pytest.approx((a.low * stretch + shift, a.high * stretch + shift), abs=1e-5)


@settings(max_examples=60)
@given(ROWS, ROWS)
def test_a_difference_turned_round_changes_its_sign(first, second):
    a, b = made(first), made(second)
    there, back = s.difference_interval(a, b, draws=60), s.difference_interval(b, a, draws=60)
    assert there.value == pytest.approx(-back.value, abs=1e-6)
    assert (there.units, there.freedom) == (back.units, back.freedom)
    if there.freedom:
        assert (there.low, there.high) == pytest.approx((-back.high, -back.low), abs=1e-5)


@settings(max_examples=60)
@given(ROWS, st.randoms())
def test_the_order_of_conversations_is_nothing(rows, random):
    shuffled = random.sample(rows, len(rows))
    a, b = s.mean_interval(made(rows), draws=60), s.mean_interval(made(shuffled), draws=60)
    assert (a.value, a.low, a.high) == pytest.approx((b.value, b.low, b.high), abs=1e-6)
