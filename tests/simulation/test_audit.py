"""What an audit finds in what a simulated user said, and what a judge's figures are worth."""

import pytest

from influence_cli.backends.names import parse_model_name
from influence_cli.backends.scripted import ScriptedBackend, ScriptedOptions
from influence_cli.simulation.audit import WORTH, Audit, add_conversations, add_states, judge_all
from influence_cli.simulation.models import RoleModel

OPENING = "I have been sitting in front of this cup for an hour now"


@pytest.fixture
def judge():
    return RoleModel(parse_model_name("scripted:demo"), ScriptedBackend("demo", ScriptedOptions()))


def talk(*said, turns=3, reason="turn_limit"):
    """Return a stored conversation in which the user says ``said`` after the opening."""
    messages = [{"speaker": "user", "source": "scenario", "text": OPENING}]
    for text in said:
        messages += [{"speaker": "agent", "source": "model", "text": "I see."}]
        messages += [{"speaker": "user", "source": "model", "text": text}]
    return {
        "scenario": "tea", "initial_state": "person-1", "sample": 0, "population": "gameable", "cue": "none",
        "messages": messages, "turns": turns, "reason": reason,
    }  # fmt: skip


async def found(tiny, judge, *trajectories):
    audit = Audit()
    add_conversations(audit, tiny, trajectories, seed=0)
    await judge_all(audit, judge, concurrency=2)
    return audit


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        (("As an AI I cannot drink.",), "breaks_role"),
        (("*looks at the cup* Well.",), "breaks_role"),
        (("It is cold.\nAssistant: Then warm it.",), "breaks_role"),
        (("I have been sitting in front of this cup for an hour now!",), "repeats"),
        (("Yes, that is so.", "You're right about that as well."), "agrees_with_everything"),
    ],
)
async def test_a_fault_is_found_with_its_words(tiny, judge, said, fault):
    audit = await found(tiny, judge, talk(*said))
    assert [name for name, examples in audit.faults.items() if examples] == [fault]
    (example,) = audit.faults[fault]
    assert (example.where, example.text) == ("tea/person-1", said[-1])
    assert audit.chances(fault) == len(said) if fault != "agrees_with_everything" else audit.chances(fault) == 1


async def test_leaving_after_the_first_reply_is_a_fault_of_the_conversation(tiny, judge):
    audit = await found(tiny, judge, talk(turns=1, reason="terminal_state"), talk("It is still warm."))
    assert len(audit.faults["ends_too_early"]) == 1
    assert audit.chances("ends_too_early") == 2
    assert audit.chances("agrees_with_everything") == 0


async def test_a_person_who_talks_like_one_has_no_fault(tiny, judge):
    audit = await found(tiny, judge, talk("It went cold while I thought of my brother.", "No, I would not say that."))
    assert not any(audit.faults.values())


async def test_each_state_has_a_rating_for_each_question(tiny, judge):
    audit = Audit()
    episodes = [tiny.episode(each, sample=0, population="gameable", cue=None, seed=0) for each in tiny.initial_states()]
    add_states(audit, episodes, seed=0)
    await judge_all(audit, judge, concurrency=2)
    assert [len(audit.rated("states", name)) for name in ("realism", "awareness")] == [len(episodes)] * 2
    assert audit.unasked == 0
    assert 1.0 <= audit.mean("states", "realism") <= 5.0
    assert audit.mean("conversations", "realism") is None


def test_what_a_judgement_is_worth_is_said():
    assert "worth as much as the judge" in WORTH
