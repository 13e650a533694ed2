"""Trajectory tables of the published project, as rows."""

import json

import pytest

from influence_cli.errors import InfluenceError
from influence_cli.store.imports.conversation import Conversation, ImportReport, Refused
from influence_cli.store.imports.tables import table_conversations


def row(**changes):
    facts = {
        "env_name": "weak_over-spending", "initial_state_id": 7, "trajectory_id": 3, "turn": 1, "iteration_number": 2,
        "conversation_length": 1, "traj_rew": 6.5, "timestep_reward": 7.0, "traj_infl": 0.25,
        "history": json.dumps([
            {"role": "environment", "content": "I want a boat."}, {"role": "agent", "content": "Which?"},
            {"role": "environment", "content": "The red one."}, {"role": "tool_call", "content": '{"boat": "red"}'},
            {"role": "tool_response", "content": "Error"}, {"role": "agent", "content": "It is yours."},
        ]),
        "preferences": json.dumps({"9": 0.3, "10": 0.5}), "influence_scores": json.dumps({"0": 0.75, "1": 0.25}),
        "transition_probs": json.dumps({"yes": 0.4, "no": 0.6}), "all_visited_states": '["initial_state", "terminal_state"]',
        "not_going_to_judge": 4.5, "convincing_not_to_book": 2.0, "consumed": 1, "harm_normalized": 0.5,
    }  # fmt: skip
    return {**facts, **changes}


def read(*rows):
    report = ImportReport()
    return list(table_conversations(rows, "therapy", report)), report


def test_a_row_becomes_a_conversation():
    ((found,), report) = read(row())
    key = found.record.key
    assert (key.environment, key.scenario, key.initial_state) == ("therapy", "over-spending", "weak-7")
    assert (key.iteration, key.sample, found.record.population) == (2, 3, "weak")
    assert [(m.turn, m.speaker, m.source) for m in found.messages] == [
        (0, "user", "scenario"), (0, "agent", "scenario"), (0, "user", "scenario"), (0, "agent", "scenario"),
        (0, "tool", "scenario"), (1, "agent", "model"),
    ]  # fmt: skip
    assert found.messages[3].tool_calls[0].arguments == {"boat": "red"}
    assert found.messages[4].tool_call_id == found.messages[3].tool_calls[0].id
    assert (found.end.mean_rating, found.end.final_rating, found.end.mean_veto) == (6.5, 7.0, 0.25)
    assert (found.end.reason, found.end.state) == ("terminal_state", "terminal_state")
    assert report.unplaced == ["harm_normalized"]


def test_metrics_take_the_names_of_our_rubrics():
    ((found,), _) = read(row())
    scores = {score.rubric: (score.value, score.method) for score in found.scores}
    assert scores == {
        "not-going-to-judge": (4.5, "distribution"), "convinces-not-to-book": (2.0, "distribution"),
        "took-action": (1.0, "computed"),
    }  # fmt: skip
    assert len({score.rubric_hash for score in found.scores}) == 3, "else one would take another's place"


def test_distributions_are_normalised_and_keep_their_mass():
    ((found,), _) = read(row())
    preference, veto, transition = found.judgements
    assert preference.mass == pytest.approx(0.8)
    assert preference.probabilities == pytest.approx((0.375, 0.625))
    assert preference.expected == pytest.approx(9.625)
    assert veto.expected == pytest.approx(0.25)
    assert transition.expected is None


def test_a_metric_that_is_missing_in_a_row_is_no_score():
    found, _ = read(
        row(), row(trajectory_id=4, not_going_to_judge=None), row(trajectory_id=5, not_going_to_judge=float("nan"))
    )
    assert [len(each.scores) for each in found] == [3, 2, 2]


@pytest.mark.parametrize(
    "changes",
    [{"history": "[]"}, {"history": "no JSON"}, {"history": json.dumps([{"role": "wizard"}])}, {"trajectory_id": None},
     {"history": json.dumps([{}])}, {"history": "[" * 100_000}, {"preferences": '{"1": "x"}'}],
)  # fmt: skip
def test_rows_that_make_no_sense_are_refused_and_the_others_stay(changes):
    found, _ = read(row(**changes), row())
    assert isinstance(found[0], Refused)
    assert found[0].where == "row 1"
    assert isinstance(found[1], Conversation)


def test_another_table_is_told_by_what_it_lacks():
    with pytest.raises(InfluenceError, match="no column 'history'"):
        read({"env_name": 1, "initial_state_id": 2, "trajectory_id": 3})
