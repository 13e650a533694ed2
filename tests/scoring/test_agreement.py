"""Agreement of judges and people, against scikit-like references and on data whose answer is known."""

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from influence_cli.errors import InfluenceError
from influence_cli.schemas.configs import RunManifest, SimulationConfig
from influence_cli.schemas.records import EpisodeKey, EpisodeRecord, ScoreRecord
from influence_cli.scoring.agreement import Pairs, agreement, nearest
from influence_cli.scoring.calibration import calibration
from influence_cli.scoring.figures import disagreements, score_figures
from influence_cli.scoring.labels import read_labels
from influence_cli.store.reader import RunReader
from influence_cli.store.run_directory import create_run

TEN = [float(n) for n in range(1, 11)]


def pairs(a, b, answers=TEN, conversations=None):
    return Pairs(a, b, conversations or list(range(len(a))), answers)


def test_the_same_ratings_agree_wholly():
    found = agreement(pairs([1.0, 5.0, 9.0, 3.0], [1.0, 5.0, 9.0, 3.0]))
    assert found["weighted_kappa"]["value"] == found["spearman"]["value"] == pytest.approx(1.0)
    assert (found["mean_absolute_difference"], found["exact"], found["n"]) == (0.0, 1.0, 4)


def test_figures_are_those_of_scipy_and_by_hand():
    rng = np.random.default_rng(1)
    a = rng.integers(1, 11, 60).astype(float)
    b = np.clip(a + rng.integers(-2, 3, 60), 1, 10)
    found = agreement(pairs(a.tolist(), b.tolist()))
    assert found["spearman"]["value"] == pytest.approx(scipy.stats.spearmanr(a, b).statistic)
    assert found["mean_absolute_difference"] == pytest.approx(np.abs(a - b).mean())
    assert found["bias"] == pytest.approx((a - b).mean())
    assert found["spearman"]["low"] < found["spearman"]["value"] < found["spearman"]["high"]
    assert sum(map(sum, found["confusion"])) == 60
    assert sum(found["base_rates"]["a"]) == pytest.approx(1.0)


def test_turns_of_one_conversation_are_resampled_together():
    """Copying each pair four times within its conversation adds no information: the interval must not shrink."""
    rng = np.random.default_rng(2)
    a, b = rng.normal(5, 2, 40), rng.normal(5, 2, 40)
    alone = agreement(pairs(a.tolist(), b.tolist()))["spearman"]
    repeated = agreement(
        pairs(np.repeat(a, 4).tolist(), np.repeat(b, 4).tolist(), conversations=[i // 4 for i in range(160)])
    )
    assert repeated["conversations"] == 40
    width = alone["high"] - alone["low"]
    assert repeated["spearman"]["high"] - repeated["spearman"]["low"] == pytest.approx(width, rel=0.15)


def test_what_is_undefined_is_none():
    found = agreement(pairs([2.0, 2.0, 2.0], [2.0, 2.0, 2.0]))
    assert found["spearman"] is None


@given(st.lists(st.floats(-3, 14), min_size=1, max_size=20))
def test_the_nearest_answer_is_no_farther_than_any_other(values):
    for value, place in zip(values, nearest(values, TEN), strict=True):
        assert abs(TEN[place] - value) <= min(abs(answer - value) for answer in TEN) + 1e-12


@pytest.fixture
def run(tmp_path):
    manifest = RunManifest(run_id="", command="simulate", created="now", config=SimulationConfig())
    directory = create_run(tmp_path / "run", manifest)
    with directory.writer() as writer:
        for number in range(1, 13):
            key = EpisodeKey(environment="tiny", scenario="tea", initial_state=f"p{number}")
            writer.open_episode(EpisodeRecord(key=key, seed=number), ())
            for judge, value in (("good", number * 0.75 + 1), ("poor", 9.5 - number * 0.75), ("wild", 10.0)):
                shares = {str(n): 0.1 for n in range(1, 11)}
                record = {"rubric": "harm", "rubric_hash": "h", "judge": judge, "method": "distribution"}
                writer.add_scores([(number, ScoreRecord(**record, value=value, distribution=shares))])
        writer.add_scores([(1, ScoreRecord(**{**record, "judge": "broken"}, usable=False, failure="timeout"))])
    with RunReader(directory) as reader:
        yield reader


EPISODES = "SELECT id, iteration, environment, scenario, initial_state, sample FROM episode"


def labels(run, tmp_path, text):
    path = tmp_path / "labels.csv"
    path.write_text(text)
    return read_labels(path, run.rows(EPISODES))


def test_judges_that_rate_the_same_are_compared(run):
    found = {(e["a"], e["b"]): e for e in disagreements(run, {"harm"})}
    opposed = found["good/distribution", "poor/distribution"]
    assert opposed["spearman"]["value"] == pytest.approx(-1.0)
    assert opposed["weighted_kappa"]["value"] < 0
    assert len(found) == 3


def test_failed_scores_are_counted_and_enter_no_mean(run):
    broken = next(entry for entry in score_figures(run) if entry["judge"] == "broken")
    assert (broken["n"], broken["failed"], broken["mean"]) == (1, 1, None)
    good = next(entry for entry in score_figures(run) if entry["judge"] == "good")
    assert good["mean"] == pytest.approx(0.75 * 6.5 + 1)
    assert good["low"] < good["mean"] < good["high"]


def test_limits_of_a_mean_end_where_its_scale_ends(run):
    facts = {"rubric": "edge", "rubric_hash": "h", "judge": "good", "method": "distribution"}
    with run.directory.writer() as writer:
        for number, value in enumerate((10.0, 9.9, 6.0), start=1):
            shares = {str(n): 0.1 for n in range(1, 11)}
            writer.add_scores([(number, ScoreRecord(**facts, value=value, distribution=shares))])
        computed = {**facts, "rubric": "length", "method": "computed"}
        writer.add_scores([(number, ScoreRecord(**computed, value=value)) for number, value in ((1, 10.0), (2, 6.0))])
    found = {entry["rubric"]: entry for entry in score_figures(run)}
    assert (found["edge"]["high"], found["edge"]["low"] > 1.0) == (10.0, True)
    assert found["length"]["high"] > 10.0, "what is counted has no end"


def test_judges_are_held_against_people_and_people_against_each_other(run, tmp_path):
    lines = ["episode,turn,rubric,label,annotator"]
    for number in range(1, 13):
        lines += [f"{number},,harm,{min(10, number)},ada", f"{number},0,harm,{min(10, number + 1)},bob"]
    found = calibration(run, labels(run, tmp_path, "\n".join(lines)))
    by_pair = {(e["a"]["name"], e["b"]["name"]): e for e in found["agreement"]}
    assert by_pair["good/distribution", "people"]["spearman"]["value"] > 0.97
    assert by_pair["poor/distribution", "people"]["spearman"]["value"] < -0.97
    assert by_pair["good/distribution", "people"]["weighted_kappa"]["value"] > 0.8
    assert by_pair["wild/distribution", "people"]["spearman"] is None
    assert {("good/distribution", "ada"), ("good/distribution", "poor/distribution"), ("ada", "bob")} <= set(by_pair)
    worst = found["largest_differences"][0]
    assert (worst["judge"], worst["initial_state"]) in {("poor/distribution", "p12"), ("wild/distribution", "p1")}
    assert found["unmatched"] == {}


def test_labels_name_conversations_by_where_they_start(run, tmp_path):
    (label,) = labels(run, tmp_path, "scenario,initial_state,rubric,label\ntea,p3,harm,4\n")
    assert (label.episode_id, label.turn, label.annotator) == (3, 0, "person")


def test_labels_that_no_judge_rated_or_that_are_no_answer_are_counted(run, tmp_path):
    text = "episode,rubric,label\n1,harm,often\n2,harm,3\n2,other,3\n"
    found = calibration(run, labels(run, tmp_path, text))
    assert found["skipped"] == {"harm": 1}
    assert found["unmatched"] == {"other": 1}
    assert {entry["b"]["kind"] for entry in found["agreement"]} == {"judge"}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("episode,rubric\n1,harm\n", r"labels.csv:1:1: The column label is missing"),
        ("rubric,label\nharm,3\n", r"labels.csv:1:1: The column episode"),
        ("episode,rubric,label\n99,harm,3\n", r"labels.csv:2:1: the run has no episode '99'"),
        ("episode,rubric,label\n1,harm,\n", r"labels.csv:2:1: the label is empty"),
        ("episode,turn,rubric,label\n1,x,harm,3\n", r"labels.csv:2:1: the turn 'x'"),
        ("episode,rubric,label\n1,harm,3\n1,harm,4\n", r"labels.csv:3:1: line 2 has a label"),
        ("scenario,initial_state,rubric,label\ntea,p99,harm,3\n", r"labels.csv:2:1: no conversation fits"),
        ("scenario,initial_state,rubric,label\ntea,,harm,3\n", r"labels.csv:2:1: 12 conversations fit"),
        ("episode,rubric,label\n", "holds no label"),
    ],
)
def test_mistakes_in_labels_are_shown_with_their_line(run, tmp_path, text, problem):
    with pytest.raises(InfluenceError, match=problem):
        labels(run, tmp_path, text)


def test_answers_in_words_are_compared_by_their_order(tmp_path):
    manifest = RunManifest(run_id="", command="simulate", created="now", config=SimulationConfig())
    directory = create_run(tmp_path / "words", manifest)
    with directory.writer() as writer:
        for number in range(1, 5):
            key = EpisodeKey(environment="tiny", scenario="tea", initial_state=f"p{number}")
            writer.open_episode(EpisodeRecord(key=key, seed=number), ())
            shares = {word: float(place == number % 3) for place, word in enumerate(("low", "middle", "high"))}
            record = {"rubric": "tone", "rubric_hash": "t", "judge": "good", "method": "distribution"}
            writer.add_scores([(number, ScoreRecord(**record, distribution=shares))])
    with RunReader(directory) as reader:
        text = "episode,rubric,label\n1,tone,middle\n2,tone,high\n3,tone,low\n4,tone,middle\n"
        (entry,) = calibration(reader, labels(reader, tmp_path, text))["agreement"]
    assert entry["weighted_kappa"]["value"] == pytest.approx(1.0)
    assert entry["answers"] == [0.0, 1.0, 2.0]
