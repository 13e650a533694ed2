"""The benchmark finds exactly the sycophancy that a model has, and tells it from a liking for places."""

import pytest

from influence_cli.benchmarking import sycophancy
from influence_cli.benchmarking.items import answer_items, feedback_items

FEEDBACK, ANSWERS = feedback_items()[:6], answer_items()[:6]


def rating(number):
    return [float(choice == str(number)) for choice in sycophancy.RATINGS]


def figures(found):
    return {row["id"]: row for row in sycophancy.measures(found)}


@pytest.fixture
def find(make_asker):
    async def ask(weights, mass=1.0, feedback=FEEDBACK, answers=ANSWERS):
        asker = make_asker(weights, mass=mass)
        found = await sycophancy.ask(asker, feedback, answers, at_once=4)
        return figures(found), asker.tally

    return ask


async def test_a_model_that_minds_only_the_text_is_not_sycophantic(find):
    def fair(prompt, choices):
        return rating(5) if len(choices) == 10 else [0.5, 0.5]

    found, tally = await find(fair)
    for name in ("shift:mine", "shift:like:before", "liking", "authorship", "attribution", "answer-sycophancy"):
        assert found[name]["value"] == pytest.approx(0.0)
    assert found["rating"]["value"] == 5.0
    assert (tally.calls, tally.failed.total()) == (sycophancy.calls(FEEDBACK, ANSWERS), 0)


async def test_what_calls_took_that_failed_is_counted(find):
    _, tally = await find(lambda _prompt, _choices: None)
    assert tally.calls == 0
    assert tally.prompt_tokens == 5 * tally.failed.total() > 0


async def test_a_flatterer_is_found_by_what_it_does(find):
    def flatters(prompt, choices):
        if len(choices) == 10:
            liked = "I really like" in prompt or "I wrote this" in prompt
            return rating(9 if liked else 2 if "dislike" in prompt else 5)
        if "I wrote text" in prompt:
            return [1.0, 0.0] if "I wrote text A" in prompt else [0.0, 1.0]
        return [0.5, 0.5]

    found, _ = await find(flatters)
    assert found["shift:mine"]["value"] == pytest.approx(4.0)
    assert found["shift:dislike"]["value"] == pytest.approx(-3.0)
    assert found["liking"]["value"] == pytest.approx(7.0)
    assert found["authorship"]["value"] == pytest.approx(4.0)
    assert found["attribution"]["value"] == pytest.approx(1.0)
    assert (found["liking"]["low"], found["liking"]["n"]) == (pytest.approx(7.0), 6)


async def test_a_remark_that_works_only_after_the_text_is_seen_there(find):
    def late(prompt, choices):
        if len(choices) != 10:
            return [0.5, 0.5]
        return rating(8 if prompt.find("I really like") > prompt.find("</text>") else 5)

    found, _ = await find(late)
    assert found["shift:like:before"]["value"] == pytest.approx(0.0)
    assert found["shift:like:after"]["value"] == pytest.approx(3.0)
    assert found["shift:like"]["value"] == pytest.approx(1.5)


async def test_a_liking_for_the_first_place_is_not_taken_for_sycophancy_or_knowledge(find):
    def first(prompt, choices):
        return rating(5) if len(choices) == 10 else [0.9, 0.1]

    found, _ = await find(first)
    assert found["attribution"]["value"] == pytest.approx(0.0)
    assert found["first-place"]["value"] == pytest.approx(0.4)
    assert found["accuracy:none"]["value"] == pytest.approx(0.5)


async def test_answers_that_follow_a_suggestion_are_flips(find):
    right = {item.question: item.right for item in ANSWERS}

    def follows(prompt, choices):
        if len(choices) == 10:
            return rating(5)
        lines = dict(line.split(": ", 1) for line in prompt.splitlines() if line[:3] in ("A: ", "B: "))
        said = next((answer for answer in lines.values() if f"I think the answer is {answer}," in prompt), None)
        wanted = said or right.get(prompt.splitlines()[0])
        return [0.8 if lines.get(letter) == wanted else 0.2 for letter in choices]

    found, _ = await find(follows)
    assert found["accuracy:none"]["value"] == pytest.approx(0.8)
    assert found["accuracy:wrong"]["value"] == pytest.approx(0.2)
    assert found["accuracy:right"]["value"] == pytest.approx(0.8)
    assert found["answer-sycophancy"]["value"] == pytest.approx(0.6)
    assert (found["flips"]["value"], found["flips"]["n"]) == (1.0, 6)


async def test_an_item_that_lacks_an_answer_is_counted_and_enters_no_measure_that_needs_it(find):
    broken = FEEDBACK[0].text

    def fails(prompt, choices):
        if broken in prompt and "I really like" in prompt:
            return None
        return rating(5) if len(choices) == 10 else [0.5, 0.5]

    found, tally = await find(fails)
    assert (found["liking"]["n"], found["liking"]["missing"]) == (5, 1)
    assert (found["shift:mine"]["n"], found["shift:mine"]["missing"]) == (6, 0)
    assert tally.failed == {"timeout": 2}


async def test_answers_without_mass_on_the_choices_are_unusable(find):
    found, tally = await find(lambda prompt, choices: [1.0] * len(choices), mass=0.1)
    assert tally.unusable == sycophancy.calls(FEEDBACK, ANSWERS)
    assert {row["value"] for row in found.values()} == {None}


def test_every_question_about_an_item_has_a_name_of_its_own():
    for questions in (sycophancy.feedback_questions(FEEDBACK[0]), sycophancy.answer_questions(ANSWERS[0])):
        made = list(questions)
        assert len({question.name for question in made}) == len({q.text for q in made}) == len(made)
