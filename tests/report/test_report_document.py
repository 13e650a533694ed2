"""The object ``influence.report/1``: right figures, nothing that failed in them, nothing chosen by its result."""

import json
import math
import sqlite3

import numpy as np
import pytest

from influence_cli.errors import InfluenceError
from influence_cli.report.document import report_document
from influence_cli.report.examples import QUANTILES
from influence_cli.report.markdown import report_markdown
from influence_cli.report.measures import Catalogue
from influence_cli.report.pages import report_page
from influence_cli.report.wording import without_gap
from influence_cli.scoring.figures import score_figures
from influence_cli.scoring.rubric_files import shipped_rubrics
from influence_cli.store.reader import RunReader

from .conftest import METRICS, add, score


@pytest.fixture
def document(trained, catalogue):
    return report_document([trained], catalogue)


def estimate(document, measure, **place):
    wanted = {"measure": measure, "by": "all", "group": "all", "split": "all", **place}
    (row,) = [row for row in document["estimates"] if all(row[name] == value for name, value in wanted.items())]
    return row


def stored(directory, sql):
    with sqlite3.connect(directory.database) as connection:
        rows = connection.execute(sql).fetchall()
    connection.close()
    return rows


def test_means_are_those_of_the_database(document, trained):
    for iteration in (0, 1):
        (mean, n), = stored(trained, "SELECT avg(mean_rating), count(*) FROM trajectory t JOIN episode e ON e.id = episode_id"
                                     f" WHERE status = 'complete' AND iteration = {iteration}")  # fmt: skip
        row = estimate(document, "reward", iteration=iteration)
        assert (row["value"], row["n"]) == (pytest.approx(mean), n)
        assert row["low"] < row["value"] < row["high"]
        assert (row["over"], row["units"]) == ("scenarios", 6)


def test_what_failed_or_was_unusable_is_counted_and_enters_no_mean(document):
    (run,) = document["runs"]
    assert run["conversations"] == {"total": 195, "complete": 192, "failed": 3, "running": 0}
    assert run["failures"] == [{"kind": "timeout", "n": 3}]
    (judge,) = run["scores"]
    assert (judge["unusable"], judge["failed"]) == (195, 195)
    assert {row["role"]: row["unusable"] for row in run["judgements"]} == {"preference": 0, "veto": 195}
    measured = {measure["id"] for measure in document["measures"]}
    assert not measured & {"harm", "manipulation"}, "a measure without one usable score must not be shown"


def test_the_last_iteration_is_reported_though_the_first_was_better(make_run, catalogue):
    directory = make_run("worse")
    with directory.writer() as writer:
        for iteration, rating in ((0, 9.0), (1, 2.0)):
            for state in range(6):
                add(writer, state, "gameable", "none", rating + 0.1 * state, iteration=iteration)
    document = report_document([directory], catalogue)
    assert document["runs"][0]["reported_iteration"] == 1
    assert all(example["iteration"] == 1 for example in document["examples"])
    change = next(row for row in document["contrasts"] if row["kind"] == "change" and row["measure"] == "reward")
    assert change["value"] == pytest.approx(-7.0)


def test_the_targeting_gap_is_gameable_less_resilient_by_cue(document, trained):
    gaps = [row for row in document["contrasts"] if row["kind"] == "targeting-gap" and row["measure"] == "reward"]
    assert {(row["iteration"], row["group"]) for row in gaps} == {
        (i, c) for i in (0, 1) for c in ("all", "none", "stated")
    }
    for row in gaps:
        where = "" if row["group"] == "all" else f" AND cue = '{row['group']}'"
        means = [stored(trained, "SELECT avg(mean_rating) FROM trajectory t JOIN episode e ON e.id = episode_id WHERE"
                        f" status = 'complete' AND population = '{p}' AND iteration = {row['iteration']}{where}")[0][0]
                 for p in ("gameable", "resilient")]  # fmt: skip
        assert row["value"] == pytest.approx(means[0] - means[1])
        assert row["means"] == pytest.approx(means)
    late = next(row for row in gaps if row["iteration"] == 1 and row["group"] == "all")
    assert late["low"] > 0.0
    assert late["p_corrected"] >= late["p"]
    assert late["effect"] > 1.0


def test_the_published_names_of_populations_make_a_gap_too(make_run, catalogue):
    directory = make_run("published")
    with directory.writer() as writer:
        for state in range(5):
            add(writer, state, "weak", "none", 8.0 + 0.1 * state, scenario=f"s{state}")
            add(writer, state, "normal", "none", 3.0, scenario=f"s{state}")
    rows = report_document([directory], catalogue)["contrasts"]
    assert any(row["kind"] == "targeting-gap" and row["value"] == pytest.approx(5.2) for row in rows)


def test_users_of_other_kinds_make_no_gap_and_it_is_said(make_run, catalogue, trained):
    directory = make_run("politics")
    with directory.writer() as writer:
        for state in range(4):
            add(writer, state, ("<progressive>", "libertarian")[state % 2], "none", 5.0 + state)
    document = report_document([directory, trained], catalogue)
    (told,) = without_gap(document)
    assert told.startswith("No targeting gap in politics:")
    assert told.endswith("the users here are <progressive>, libertarian.")
    assert "the users here are &lt;progressive&gt;, libertarian." in report_page(document)
    assert "No targeting gap in politics" in report_markdown(document)


def test_heldout_initial_states_stand_beside_those_of_training(document):
    splits = {
        split: estimate(document, "reward", iteration=1, split=split)["n"] for split in ("all", "train", "heldout")
    }
    assert splits == {"all": 96, "train": 72, "heldout": 24}
    assert any(row["kind"] == "heldout-gap" for row in document["contrasts"])


def test_corrections_are_within_each_kind(document):
    for kind in ("change", "targeting-gap", "heldout-gap"):
        rows = [row for row in document["contrasts"] if row["kind"] == kind and row["p"] is not None]
        rows = [row for row in rows if row.get("iteration") == rows[-1].get("iteration")]
        assert {row["family"] for row in rows} == {len(rows)}
        smallest = min(rows, key=lambda row: row["p"])
        assert smallest["p_corrected"] == pytest.approx(min(1.0, smallest["p"] * len(rows)))


def test_harm_of_an_environment_is_the_mean_of_its_own_harmful_metrics(document, trained):
    (harm,) = document["runs"][0]["harm"]
    assert (harm["published"], harm["formula"], harm["n"]) == (False, "mean(pleases, left)", 192)
    measures = {measure["id"]: measure for measure in document["measures"]}
    assert measures["left"]["kind"] == "computed"
    (share,) = stored(trained, "SELECT avg(mean_rating > 7) FROM trajectory t JOIN episode e ON e.id = episode_id"
                               " WHERE iteration = 1 AND status = 'complete'")  # fmt: skip
    assert estimate(document, "left", iteration=1)["value"] == pytest.approx(share[0]), "no visit counts as 0"
    assert "visited:talking" not in measures, "a state that every conversation enters says nothing"


def test_the_published_definition_of_harm(make_run):
    directory = make_run("therapy", "therapy")
    with directory.writer() as writer:
        for state in range(6):
            add(writer, state, "gameable", "none", 5.0, environment="therapy")
        parts = {"consequences": 4.0, "dissuade": 1.0, "encouragement": 10.0}
        writer.add_scores([(i, score(name, value)) for i in range(1, 7) for name, value in parts.items()])
        writer.add_scores([(6, score("dissuade", None, usable=False))])
    document = report_document([directory], Catalogue(shipped_rubrics()))
    (harm,) = document["runs"][0]["harm"]
    assert harm["published"]
    assert harm["n"] == 5, "a conversation that lacks a part has no harm"
    assert estimate(document, "aggregate-harm", iteration=0)["value"] == pytest.approx((1 - 3 / 9 + 1 + 1) / 3)


def therapy_run(make_run, *given, name="therapy"):
    """Return a run of six conversations in therapy with scores: rubric, value and what differs from other scores."""
    directory = make_run(name, "therapy")
    with directory.writer() as writer:
        for state in range(6):
            add(writer, state, "gameable", "none", 5.0 + 0.1 * state, environment="therapy")
        for rubric, value, changes in given:
            writer.add_scores([(i, score(rubric, value, **changes)) for i in range(1, 7)])
    return directory


PARTS = ("consequences", "dissuade", "encouragement")


def test_a_second_judge_takes_no_harm_away(make_run):
    asked = [(part, 1.0, {}) for part in PARTS] + [("dissuade", 10.0, {"judge": "scripted:other"})]
    document = report_document([therapy_run(make_run, *asked)], Catalogue(shipped_rubrics()))
    (harm,) = document["runs"][0]["harm"]
    assert (harm["published"], harm["judges"]) == (True, ["scripted:judge"])
    assert estimate(document, "aggregate-harm", iteration=0)["value"] == pytest.approx(2 / 3)


def test_harm_by_own_metrics_is_of_all_of_them_or_not_at_all(make_run):
    own = {"left": METRICS["tiny"]["left"], "lied": METRICS["tiny"]["pleases"].model_copy(update={"id": "lied"})}
    document = report_document([therapy_run(make_run)], Catalogue(shipped_rubrics(), {"therapy": METRICS["tiny"]}))
    assert document["runs"][0]["harm"] == [], "nobody is known to have left, so a part is missing"
    document = report_document([therapy_run(make_run, name="b")], Catalogue(shipped_rubrics(), {"therapy": own}))
    assert not any(row["measure"] == "aggregate-harm" for row in document["estimates"])


def test_harms_of_different_definitions_are_not_set_against_each_other(make_run):
    catalogue = Catalogue(shipped_rubrics(), {"therapy": {"pleases": METRICS["tiny"]["pleases"]}})
    published = therapy_run(make_run, *((part, 1.0, {}) for part in PARTS))
    document = report_document([published, therapy_run(make_run, name="own")], catalogue)
    assert [run["harm"][0]["published"] for run in document["runs"]] == [True, False]
    assert not [row for row in document["contrasts"] if row["kind"] == "run" and row["measure"] == "aggregate-harm"]


def test_a_rubric_asked_anew_in_other_words_counts_as_asked_last(make_run):
    turns = [("dissuade", value, {"rubric_hash": "new", "turn": turn}) for turn, value in ((1, 8.0), (2, 10.0))]
    directory = therapy_run(make_run, ("dissuade", 2.0, {"rubric_hash": "old"}), *turns)
    document = report_document([directory], Catalogue(shipped_rubrics()))
    assert estimate(document, "dissuade", iteration=0)["value"] == 9.0
    with RunReader(directory) as run:
        (told,) = score_figures(run, lambda rubric, _judge: rubric == "dissuade")
    assert (told["mean"], told["conversations"], told["n"]) == (9.0, 6, 18)


def test_an_imported_table_of_actions_has_the_published_harm(make_run):
    directory = make_run("imported", "action-advice")
    with directory.writer() as writer:
        for state in range(6):
            add(writer, state, "gameable", "none", 5.0, environment="action-advice")
        writer.add_scores([(i, score("took-action", float(i % 2), method="computed")) for i in range(1, 7)])
    document = report_document([directory], Catalogue(shipped_rubrics()))
    assert document["runs"][0]["harm"][0]["published"]
    assert estimate(document, "aggregate-harm", iteration=0)["value"] == 0.5


def test_preference_shift_is_told_by_probe_part_and_population(document):
    rows = {(row["probe"], row["part"], row["population"]): row["value"] for row in document["preference_shift"]}
    assert rows["plan", "shift", "all"] == 1.0
    assert rows["plan", "after", "gameable"] - rows["plan", "before", "gameable"] == 1.0
    assert set(rows) == {("plan", part, p) for part in ("before", "after", "shift", "variation")
                         for p in ("all", "gameable", "resilient")}  # fmt: skip
    assert not any(row["measure"].startswith("probe:") for row in document["estimates"])


def test_shift_is_set_against_the_control_of_the_same_conversations(make_run, catalogue):
    directory = make_run("controlled")
    with directory.writer() as writer:
        for state in range(12):
            add(writer, state, "gameable", "none", 5.0, scenario=f"s{state % 6}")
        writer.add_scores([(i, score("probe:plan:control-shift", 0.25 + 0.01 * i)) for i in range(1, 7)])
    rows = {
        row["part"]: row
        for row in report_document([directory], catalogue)["preference_shift"]
        if row["population"] == "all"
    }
    assert rows["over-control"]["n"] == 6
    assert rows["over-control"]["value"] == pytest.approx(1.0 - 0.285)
    assert rows["over-control"]["low"] > 0.0


def test_shifts_of_two_models_stand_apart_each_with_its_own_control(make_run, catalogue):
    directory = make_run("twice")
    with directory.writer() as writer:
        for state in range(12):
            add(writer, state, "gameable", "none", 5.0, scenario=f"s{state % 6}")
        other = {"judge": "openai:other", "rubric_hash": "o"}
        for i in range(1, 13):
            writer.add_scores([(i, score("probe:plan:shift", 2.0 + 0.01 * i, **other)),
                               (i, score("probe:plan:control-shift", 0.5, **(other | {"rubric_hash": "c"})))])  # fmt: skip
    told = report_document([directory], catalogue)["preference_shift"]
    rows = {(row["probe"], row["part"]): row["value"] for row in told if row["population"] == "all"}
    assert rows["plan [openai:other, distribution]", "over-control"] == pytest.approx(1.565)
    assert rows["plan [scripted:judge, distribution]", "shift"] == 1.0
    assert ("plan [scripted:judge, distribution]", "over-control") not in rows


def test_rating_distributions_are_mean_shares(document):
    first, last = document["rating_distributions"]
    assert (first["iteration"], last["iteration"]) == (0, 1)
    for row in (first, last):
        assert math.fsum(row["shares"].values()) == pytest.approx(1.0)
        assert row["n"] == 96, "three conversations failed: they enter no mean"


def test_limits_stay_within_what_is_possible(document):
    scales = {measure["id"]: measure["scale"] for measure in document["measures"]}
    for row in document["estimates"]:
        if scales[row["measure"]] and row["low"] is not None:
            low, high = scales[row["measure"]]
            assert low <= row["low"] <= row["value"] + 1e-12
            assert row["value"] - 1e-12 <= row["high"] <= high


def test_examples_are_at_fixed_quantiles_and_the_same_every_time(document, trained, catalogue):
    examples = document["examples"]
    assert [example["quantile"] for example in examples] == list(QUANTILES)
    values = [example["value"] for example in examples]
    assert values == sorted(values)
    ratings = np.sort([row[0] for row in stored(trained, "SELECT mean_rating FROM trajectory t JOIN episode e ON"
                                                         " e.id = episode_id WHERE iteration = 1")])  # fmt: skip
    assert values == [ratings[int(q * (len(ratings) - 1))] for q in QUANTILES]
    assert report_document([trained], catalogue) == document


def test_two_judges_of_one_rubric_are_two_measures(make_run, catalogue):
    directory = make_run("judges")
    with directory.writer() as writer:
        for state in range(4):
            add(writer, state, "gameable", "none", 5.0)
        writer.add_scores([(i, score("deception", 9.0, judge="scripted:other")) for i in range(1, 5)])
    document = report_document([directory], catalogue)
    found = {measure["id"]: measure["judges"] for measure in document["measures"] if "deception" in measure["id"]}
    assert found == {"deception scripted:judge": ["scripted:judge"], "deception scripted:other": ["scripted:other"]}
    assert estimate(document, "deception scripted:other", iteration=0)["value"] == 9.0


def test_one_name_on_two_scales_is_two_measures(make_run, catalogue):
    directory = make_run("scales")
    with directory.writer() as writer:
        for state in range(4):
            add(writer, state, "gameable", "none", 5.0)
        ten = {str(n): float(n == 9) for n in range(1, 11)}
        writer.add_scores([(1, score("pleases", 9.0, rubric_hash="another", distribution=ten))])
    ids = [measure["id"] for measure in report_document([directory], catalogue)["measures"]]
    assert {"pleases 1-5", "pleases 1-10"} <= set(ids)


def test_runs_side_by_side_are_contrasted_where_their_environments_are_alike(trained, make_run, catalogue):
    other, foreign = make_run("other"), make_run("foreign", "elsewhere")
    with other.writer() as writer:
        for scenario in range(6):
            for state in range(4):
                add(writer, state, "gameable", "none", 9.0 + 0.1 * state, scenario=f"s{scenario}")
    with foreign.writer() as writer:
        add(writer, 0, "gameable", "none", 9.0, environment="elsewhere")
    document = report_document([trained, other, foreign], catalogue)
    rows = [row for row in document["contrasts"] if row["kind"] == "run"]
    assert {row["run"] for row in rows} == {"other"}
    reward = next(row for row in rows if row["measure"] == "reward")
    base = estimate(document, "reward", run="trained", iteration=1, split="train")
    assert reward["value"] == pytest.approx(9.15 - base["value"]), "the other run has nobody who is held out"
    alone = estimate(document, "reward", run="foreign")
    assert (alone["low"], alone["high"]) == (None, None), "one conversation has no interval"


def test_power_grows_with_what_conversations_share(document):
    rows = {row["measure"]: row for row in document["power"]}
    needed = rows["reward"]["needed"]
    assert needed["0.2"] > needed["0.5"] > needed["0.8"] >= 25
    assert rows["reward"]["design_effect"] >= 1.0


def test_a_report_is_json_without_nan_or_infinity(document):
    json.dumps(document, allow_nan=False)


def test_a_run_without_a_complete_conversation_is_told(make_run, catalogue):
    directory = make_run("empty")
    with directory.writer() as writer:
        add(writer, 0, "gameable", "none", 1.0, failed=True)
    with pytest.raises(InfluenceError, match="No complete conversation"):
        report_document([directory], catalogue)


@pytest.fixture
def ended(make_run):
    """A training run: in the last iteration nobody is there but the held-out, who never rate otherwise."""
    directory = make_run("ended")
    with directory.writer() as writer:
        for iteration in (0, 1, 2):
            for state in range(12):
                place = {"iteration": iteration, "scenario": f"s{state % 6}"}
                for population, extra in (("gameable", 0.0), ("resilient", 0.5)):
                    add(writer, 100 + state, population, "none", 3.0 + extra + 0.1 * state, split="heldout", **place)
                    if iteration < 2:
                        add(writer, state, population, "none", 8.0 + iteration - extra, **place)
    return directory


def test_two_iterations_are_compared_on_the_splits_that_both_have(ended, catalogue):
    document = report_document([ended], catalogue)
    rows = [row for row in document["contrasts"] if row["measure"] == "reward"]
    (change,) = [row for row in rows if row["kind"] == "change"]
    assert (change["value"], change["n"]) == (pytest.approx(0.0), [24, 24])
    gaps = {row["iteration"]: row["value"] for row in rows if row["kind"] == "targeting-gap"}
    assert gaps == {0: pytest.approx(-0.5), 2: pytest.approx(-0.5)}
    first, last = document["rating_distributions"]
    assert (first["n"], last["n"]) == (24, 24)
    assert first["shares"] == last["shares"]


def test_what_carries_over_is_told_of_the_last_iteration_that_has_both_splits(ended, catalogue):
    document = report_document([ended], catalogue)
    (gap,) = [row for row in document["contrasts"] if row["kind"] == "heldout-gap" and row["measure"] == "reward"]
    assert (gap["iteration"], gap["n"]) == (1, [24, 24])
    assert gap["value"] == pytest.approx(3.8 - 8.75)
    assert "Held-out less training initial states" in report_markdown(document)
    assert "At the last iteration that has conversations of both." in report_page(document)


def test_a_training_run_is_set_against_another_run_on_the_splits_that_both_have(ended, trained, catalogue):
    document = report_document([trained, ended], catalogue)
    (row,) = [row for row in document["contrasts"] if row["kind"] == "run" and row["measure"] == "reward"]
    assert row["n"] == [24, 24], "of the run that has both splits, only held-out conversations"
