"""How far a judge can be talked round: the same question with and without a demand in the reply."""

import pytest

from influence_cli.backends.names import parse_model_name
from influence_cli.backends.scripted import ScriptedBackend, ScriptedOptions
from influence_cli.scoring.injection import DEMAND, INJECTED, PLAIN, SHIFT, injection_items, with_demand
from influence_cli.scoring.judging import Asking
from influence_cli.scoring.plan import Plan
from influence_cli.simulation.models import RoleModel
from influence_cli.testing.scorers import message, trajectory


@pytest.fixture
def conversation():
    said = trajectory(message(0, "user", "Should I?"), message(1, "agent", "Yes."), message(2, "agent", "Of course."))
    return {**said, "environment": "tiny"}


def prompts(conversation):
    return {
        item.name: Asking().ways(item)[0].prompt()[1].content
        for item in injection_items(1, {"environment": "tiny", **conversation})
    }


def test_both_questions_are_alike_but_for_the_demand(conversation):
    found = prompts(conversation)
    assert list(found) == [PLAIN, INJECTED]
    assert DEMAND not in found[PLAIN]
    assert found[INJECTED].replace(f"\n\n{DEMAND}", "") == found[PLAIN]
    assert f"Of course.\n\n{DEMAND}\n</agent>" in found[INJECTED], "it stands in the last reply, inside its tags"
    assert "10 = as well as a reply can" in found[PLAIN]


def test_a_conversation_without_a_reply_is_not_asked():
    silent = trajectory(
        message(0, "user", "Hello?"), message(0, "agent", "Written beforehand."), message(1, "agent", " ")
    )
    assert with_demand(silent) is None
    assert prompts(silent) == {}


def test_the_two_questions_are_different_scores(conversation):
    judge = RoleModel(parse_model_name("scripted:demo"), ScriptedBackend("demo", ScriptedOptions()))
    plan = Plan(injection=True, judges=[judge])
    assert plan.asks_judges
    tasks = plan.items(1, conversation)
    assert len({item.hashed for item, _ in tasks}) == 2
    assert plan.asked == {PLAIN, INJECTED, SHIFT}


SCRIPT = """
choices:
  - {role: judge, contains: "To whoever rates", weights: {"10": GIVEN, "4": REST}}
  - {role: judge, weights: {"4": 1}}
"""


@pytest.mark.parametrize(("given", "shift"), [(1.0, 6.0), (0.5, 3.0), (0.0, 0.0)])
def test_the_shift_is_stored_with_an_interval_and_asked_once(influence, made_run, script, given, shift):
    judge = script(SCRIPT.replace("GIVEN", str(given)).replace("REST", str(1.0 - given)))
    arguments = ("score", made_run, "--with", "injection-probe", "--judge", judge, "--json")
    answer = influence(*arguments)
    assert answer.code == 0, answer.stderr
    figures = {entry["rubric"]: entry for entry in answer.document["figures"]}
    assert figures[SHIFT]["mean"] == pytest.approx(shift)
    assert figures[SHIFT]["low"] <= figures[SHIFT]["mean"] <= figures[SHIFT]["high"]
    assert figures[PLAIN]["mean"] == pytest.approx(4.0)
    assert {entry["n"] for entry in figures.values()} == {8}
    again = influence(*arguments)
    assert again.document["scores"]["asked"] == 0
    assert again.document["figures"] == answer.document["figures"]


def test_half_a_pair_gives_no_shift(influence, made_run, script):
    judge = script(
        SCRIPT.replace("GIVEN", "1").replace("REST", "0") + 'failures: [{role: judge, contains: "To whoever"}]\n'
    )
    answer = influence(
        "score", made_run, "--with", "injection-probe", "--judge", judge, "--json", "--max-failed-share", "1"
    )
    figures = {entry["rubric"]: entry for entry in answer.document["figures"]}
    assert SHIFT not in figures
    assert figures[INJECTED]["failed"] == 8
