"""Toxicity is what the classifier says, over all continuations of a beginning or not at all."""

import re
from types import SimpleNamespace

import pytest

from influence_cli.backends.names import parse_model_name
from influence_cli.benchmarking import toxicity
from influence_cli.benchmarking.items import Beginning, beginnings
from influence_cli.errors import InfluenceError
from influence_cli.scoring.computed import NamedScorer
from influence_cli.scoring.judging import Asking
from influence_cli.scoring.rubric_files import pick_rubrics, shipped_rubrics
from influence_cli.scoring.scorers import Measured, NoOptions, ReplyLength
from influence_cli.simulation.models import RoleModel

ITEMS = beginnings()[:4]


def by_words(values):
    """A scorer whose value is the number in the text."""

    def scores(trajectory, environment):
        text = trajectory["messages"][-1]["text"]
        return [Measured("other", 0, 0.0), Measured("toxic", 0, values(text))]

    return toxicity.ScorerClassifier(NamedScorer("mine", SimpleNamespace(scores=scores), "1"), "toxic")


async def test_the_largest_of_the_samples_counts(make_asker):
    said = iter([0.1, 0.7, 0.2, 0.3] * 2)
    asker = make_asker(says=lambda prompt, seed: f"text {next(said)}")
    found = await toxicity.ask(asker, ITEMS, by_words(lambda text: float(text.split()[1])), samples=2, at_once=1)
    rows = {row["id"]: row for row in toxicity.measures(found, 2)}
    assert rows["toxicity:expected-maximum"]["value"] == pytest.approx((0.7 + 0.3 + 0.7 + 0.3) / 4)
    assert rows["toxicity:probability"]["value"] == pytest.approx(0.5)
    assert rows["toxicity:mean"]["value"] == pytest.approx(0.325)


async def test_a_beginning_that_lacks_a_score_is_counted_and_enters_no_measure(make_asker):
    def says(prompt, seed):
        return None if ITEMS[0].prompt in prompt else "text 0.5"

    asker = make_asker(says=says)
    found = await toxicity.ask(asker, ITEMS, by_words(lambda text: 0.5), samples=2, at_once=2)
    rows = {row["id"]: row for row in toxicity.measures(found, 2)}
    assert (rows["toxicity:mean"]["n"], rows["toxicity:mean"]["missing"]) == (3, 1)
    assert asker.tally.failed == {"timeout": 2}


async def test_values_that_are_no_share_are_failures_of_the_classifier(make_asker):
    asker = make_asker(says=lambda prompt, seed: "text")
    lengths = toxicity.ScorerClassifier(NamedScorer("reply-length", ReplyLength(NoOptions()), "1"))
    classifiers = (by_words(lambda text: 3.0), by_words(lambda text: 1 / 0))
    for classifier, kind in zip(classifiers, ("not between 0 and 1", "ZeroDivisionError"), strict=True):
        found = await toxicity.ask(asker, ITEMS, classifier, samples=1, at_once=2)
        assert classifier.failed == {kind: 4}
        assert toxicity.measures(found, 1)[0]["value"] is None
    assert await lengths.score(0, "a", "b") == 1.0


async def test_a_rubric_is_scaled_to_its_harmful_end(make_asker):
    judge = RoleModel(
        parse_model_name("scripted:judge"),
        make_asker(lambda prompt, choices: [float(choice == "10") for choice in choices]).model.backend,
    )
    (rubric,) = pick_rubrics(["toxicity"], [])
    classifier = toxicity.RubricClassifier(rubric, judge, Asking())
    asker = make_asker(says=lambda prompt, seed: "text")
    found = await toxicity.ask(asker, ITEMS, classifier, samples=1, at_once=2)
    assert toxicity.measures(found, 1)[0]["value"] == pytest.approx(1.0)
    assert classifier.tally.calls == 4
    turned = toxicity.RubricClassifier(rubric.model_copy(update={"harmful_direction": "down"}), judge, Asking())
    assert await turned.score(0, "a", "b") == pytest.approx(0.0)


def test_a_rubric_without_a_scale_is_refused():
    chosen = next(rubric for rubric in shipped_rubrics().values() if rubric.scale is not None)
    without = chosen.model_copy(update={"scale": None})
    with pytest.raises(InfluenceError, match="has no scale"):
        toxicity.RubricClassifier(without, RoleModel(parse_model_name("scripted:demo"), None), Asking())


async def test_toxic_beginnings_are_told_apart_where_they_are_known(make_asker):
    items = [Beginning(id=str(n), prompt=f"prompt {n}", toxicity=n / 4) for n in range(4)]
    asker = make_asker(says=lambda prompt, seed: re.findall(r"prompt (\d)", prompt)[0])
    found = await toxicity.ask(asker, items, by_words(lambda text: int(text) / 10), samples=1, at_once=1)
    rows = {row["id"]: row for row in toxicity.measures(found, 1)}
    assert rows["toxicity:mean:toxic"]["value"] == pytest.approx(0.25)
    assert rows["toxicity:mean:not-toxic"]["value"] == pytest.approx(0.05)
