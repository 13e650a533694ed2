"""The rubrics that come with the program, and those that authors write."""

import re

import pytest

from influence_cli.errors import InfluenceError, UnknownNameError
from influence_cli.schemas.rubrics import Rubric
from influence_cli.scoring.questions import asked_hash
from influence_cli.scoring.rubric_files import pick_rubrics, read_rubrics, shipped_rubrics

PUBLISHED = """
deception harm dissuade consequences not_going_to_judge judgemental validation encouragement gaslighting manipulation
enthusiasm alternatives preference toxicity
dissuade_booking pretend_tool_call_worked pretend_tool_call_wasnt_made apologizes_tool_call_not_working
explicit_mention_of_error agent_implies_error_occurred error_mentioning omission convincing_not_to_book
implies_booking_succeeded
political_agreement political_inappropriateness liberal conservative sycophancy_eval
""".split()
BEYOND = """
eval-awareness realism sycophancy emotional-manipulation dependence-seeking autonomy-support pressure
delusion-encouragement sandbagging
veto-binary veto-five-point veto-constitutional
veto-binary-negative veto-five-point-negative veto-constitutional-negative
""".split()


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_published_metric_can_be_asked_for_by_its_own_name(name):
    (rubric,) = pick_rubrics([name])
    assert pick_rubrics([name.replace("_", "-")]) == [rubric]
    assert shipped_rubrics()[rubric.id] is rubric


@pytest.mark.parametrize("name", BEYOND)
def test_what_goes_beyond_is_there(name):
    assert name in shipped_rubrics()


def test_scales_are_those_of_the_study():
    five = {"liberal", "conservative", "political_agreement", "political_inappropriateness"}
    for name in PUBLISHED:
        expected = 5 if name in five else 2 if name == "sycophancy_eval" else 10
        assert pick_rubrics([name])[0].choices == tuple(str(n) for n in range(1, expected + 1)), name


def test_every_shipped_rubric_can_be_asked_both_ways_round():
    for rubric in shipped_rubrics().values():
        assert rubric.reversible, rubric.id
        assert rubric.asked(reversed_scale=True) != rubric.asked()
        assert not re.search(r"\d", rubric.question), f"{rubric.id}: a number in the question cannot be turned round"


def test_negatives_name_what_they_turn_round():
    known = shipped_rubrics()
    negatives = [rubric for rubric in known.values() if rubric.negates]
    assert {rubric.negates for rubric in negatives} == {"veto-binary", "veto-five-point", "veto-constitutional"}
    assert all(known[r.negates].harmful_direction != r.harmful_direction for r in negatives)


def test_no_two_rubrics_ask_the_same():
    questions = [rubric.asked() for rubric in shipped_rubrics().values()]
    assert len(set(questions)) == len(questions)
    assert len({asked_hash(r.id, r) for r in shipped_rubrics().values()}) == len(questions)


def test_rubrics_are_found_by_name_tag_and_file(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("rubrics: [{id: mine, question: How so?, choices: [low, high]}]")
    assert {r.id for r in pick_rubrics(["harm", "harm"], [path])} >= {"mine", "harm"}
    assert "deception" in {r.id for r in pick_rubrics(["core"])}
    with pytest.raises(UnknownNameError, match="Did you mean 'deception'"):
        pick_rubrics(["decption"])
    with pytest.raises(InfluenceError, match="stands twice"):
        pick_rubrics([], [path, path])


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("rubrics:\n  - {id: mine, question: How so?, choices: ['1']}", r":2:\d+: .*at least two choices"),
        ("rubrics:\n  - {id: mine, question: How so?, choices: [a, a]}", r":2:\d+: .*stands twice"),
        ("rubrics:\n  - id: mine\n    scale: {low: 5, high: 1}\n    question: How?", r":3:\d+: .*lower to a higher"),
        ("rubrics:\n  - id: mine\n    scale: {means: {11: much}}\n    question: How?", r":3:\d+: .*not on the scale"),
        ("rubrics:\n  - {id: mine, questoin: How so?}", r":2:\d+: .*questoin.*Did you mean 'question'"),
        ("rubrics:\n  - {id: m, question: q, choices: [a, b], scale: {low: 1}}", r":2:\d+: .*not both"),
        ("rubrics:\n  - {id: m, question: q, otherwise: {when: x, answer: '11'}}", r":2:\d+: .*none of the answers"),
        ("rubrics: []", r":1:\d+"),
    ],
)
def test_a_mistake_in_a_file_is_shown_with_its_line(tmp_path, text, problem):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(InfluenceError, match="mine.yaml" + problem):
        read_rubrics(path)


def test_without_words_at_both_ends_a_scale_cannot_be_turned_round():
    plain = Rubric(id="plain", question="How much?")
    assert plain.choices[-1] == "10"
    assert not plain.reversible
    with pytest.raises(ValueError, match="says not in words"):
        plain.asked(reversed_scale=True)
