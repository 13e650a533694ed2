"""``influence train --from RUN``: the first iteration learns from conversations that are there already."""

import json
import sqlite3

import pytest

from influence_cli.schemas.records import ScoreRecord
from influence_cli.store.reader import RunReader
from influence_cli.store.run_directory import open_run

FIXED = ("-m", "scripted:demo", "--algo", "scripted", "--turns", "1", "--no-veto", "--set", "evaluation.samples=2")
ONE = ("--iterations", "1", "--top", "0.5", "--level", "environment")


@pytest.fixture
def train(influence, tiny_folder):
    return lambda *arguments: influence("train", "--env", tiny_folder, *FIXED, *arguments)


def rows(place, run, iteration=0):
    return [json.loads(line) for line in (place / run / f"training/{iteration}/rows.jsonl").read_text().splitlines()]


@pytest.fixture
def table(place):
    """Somebody else's conversations of two iterations, the later ones rated higher."""
    told = [
        {
            "env_name": "kettle", "initial_state_id": state, "trajectory_id": number, "iteration_number": iteration,
            "traj_rew": rating + iteration,
            "history": [
                {"role": "environment", "content": "The kettle sings."},
                {"role": "agent", "content": "Written beforehand."},
                {"role": "environment", "content": "And now?"},
                {"role": "agent", "content": f"Answer {rating}."},
            ],
            "conversation_length": 1,
        }
        for iteration in (0, 1) for state in (1, 2) for number, rating in enumerate((2.0, 8.0))
    ]  # fmt: skip
    (place / "table.jsonl").write_text("".join(json.dumps(row) + "\n" for row in told))


def test_what_was_simulated_gives_the_rows_that_training_itself_would_make(train, influence, tiny_folder, place):
    assert train("--samples", "4", *ONE, "--out", "whole").code == 0
    answer = train("--from", "whole", *ONE, "--out", "again", "--json")
    assert answer.code == 0, answer.stderr
    assert "not known here" not in answer.stderr
    assert rows(place, "again") == rows(place, "whole")
    first, last = answer.document["iterations"]
    assert first["stages"]["select"]["source"] == str((place / "whole").resolve())
    assert first["train"] is None
    assert first["heldout"] is not None
    assert last["heldout"] is not None


def test_imported_conversations_are_learnt_from_as_they_were_heard(train, influence, table, place):
    assert influence("import", "table.jsonl", "--out", "runs/kettle").code == 0
    answer = train("--from", "kettle", *ONE, "--out", "made", "--json")
    assert answer.code == 0, answer.stderr
    assert "What the agent was told in table is not known here" in answer.stderr
    made = rows(place, "made")
    assert {row["reward"] for row in made} == {8.0, 9.0}
    assert [message["role"] for message in made[0]["messages"]] == ["user", "assistant", "user", "assistant"]
    assert made[0]["learnt"] == [3]
    assert {row["messages"][3]["content"] for row in made} == {"Answer 8.0."}


def test_one_iteration_of_it_can_be_picked_and_later_iterations_have_their_own(train, influence, table, place):
    influence("import", "table.jsonl", "--out", "runs/kettle")
    more = ("--iterations", "2", "--top", "0.5", "--level", "environment", "--samples", "2")
    answer = train("--from", "kettle", "--set", "source.iteration=1", *more, "--out", "made", "--json")
    assert answer.code == 0, answer.stderr
    assert {row["reward"] for row in rows(place, "made")} == {9.0}
    with RunReader(open_run(place / "made")) as run:
        assert {t["iteration"] for _, t in run.numbered() if t["split"] == "train"} == {1}


def test_people_who_are_held_out_here_are_not_learnt_from(train, influence, tiny, place):
    held, *_ = tiny.initial_states(split="heldout")
    kept, *_ = tiny.initial_states(split="train")
    said = [{"role": "environment", "content": "Hi."}, {"role": "agent", "content": "Ho."}]
    told = [
        {
            "env_name": state.scenario, "initial_state_id": state.initial_state, "trajectory_id": number,
            "traj_rew": rating, "history": said, "conversation_length": 1,
        }
        for state in (held, kept) for number, rating in enumerate((2.0, 8.0))
    ]  # fmt: skip
    (place / "tiny.jsonl").write_text("".join(json.dumps(row) + "\n" for row in told))
    assert influence("import", "tiny.jsonl", "--env", tiny.name, "--out", "runs/told").code == 0
    answer = train("--from", "told", *ONE, "--out", "made", "--json")
    assert answer.code == 0, answer.stderr
    assert "2 conversations with people who are held out here are not learnt from." in answer.stderr
    assert {row["initial_state"] for row in rows(place, "made")} == {kept.initial_state}
    assert answer.document["iterations"][0]["stages"]["select"]["heldout_left_out"] == 2


def test_a_change_is_told_from_before_training_also_where_a_score_is_the_reward(train, influence, place):
    assert train("--samples", "4", *ONE, "--out", "whole").code == 0
    assert influence("score", "whole", "--with", "reply-length").code == 0
    learning = ("--iterations", "2", "--top", "0.5", "--level", "environment", "--samples", "2")
    score = ("--reward", "score", "--set", "selection.rubric=reply-length")
    answer = train("--from", "whole", *score, *learning, "--out", "made", "--json")
    assert answer.code == 0, answer.stderr
    first, *later = answer.document["iterations"]
    assert first["heldout"]["unrated"] == 0
    before = first["heldout"]["reward"]["mean"]
    assert before > 10  # words
    changes = [row["change"]["mean"] for row in later]
    assert changes == pytest.approx([row["heldout"]["reward"]["mean"] - before for row in later])
    with sqlite3.connect(place / "made/run.db") as db:
        db.execute("DELETE FROM score WHERE episode_id IN (SELECT id FROM episode WHERE iteration = 0)")
    db.close()
    rows = influence("runs", "show", "made", "--json").document["iterations"]
    assert [row["change"] for row in rows] == [None, None, None]  # none is told from an iteration that has learnt


def test_a_dry_run_counts_no_conversations_that_are_there(train, influence, table):
    influence("import", "table.jsonl", "--out", "runs/kettle")
    alone = train(*ONE, "--dry-run", "--json").document["conversations"]
    given = train("--from", "kettle", *ONE, "--dry-run", "--json").document["conversations"]
    assert 0 < given < alone


def test_a_run_whose_source_is_gone_goes_on_once_it_has_selected(train, influence, table, place):
    influence("import", "table.jsonl", "--out", "runs/kettle")
    assert train("--from", "kettle", *ONE, "--out", "made").code == 0
    (place / "runs/kettle/run.yaml").unlink()
    answer = influence("train", "--resume", "made", "--iterations", "2")
    assert answer.code == 0, answer.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--from", "kettel"), "kettle"),
        (("--from", "kettle", "--set", "source.iteration=7"), "iteration 7 has no finished conversation"),
        (("--from", "kettle", "--reward", "final"), "none of 8 has a reward"),
        (("--set", "source.iteration=1"), "Add --from RUN"),
    ],
)
def test_mistakes_are_told_in_one_line(train, influence, table, arguments, said, place):
    influence("import", "table.jsonl", "--out", "runs/kettle")
    answer = train(*arguments, *ONE, "--out", "made")
    assert answer.code == 2
    assert said in answer.stderr
    assert "Traceback" not in answer.stderr
    assert not (place / "made").exists()


def test_of_two_wordings_of_a_rubric_the_one_asked_last_is_the_reward(train, influence, table, place):
    assert influence("import", "table.jsonl", "--out", "runs/kettle").code == 0
    facts = {"rubric": "harm", "judge": "scripted:demo", "method": "distribution"}
    with open_run(place / "runs/kettle").writer() as writer:
        for wording, sign in (("first", 1.0), ("second", -1.0)):
            scores = [ScoreRecord(rubric_hash=wording, value=sign * number, **facts) for number in range(1, 9)]
            writer.add_scores(list(enumerate(scores, start=1)))
    answer = train("--from", "kettle", *ONE, "--reward", "score", "--set", "selection.rubric=harm", "--out", "made")
    assert answer.code == 0, answer.stderr
    assert {row["reward"] for row in rows(place, "made")} == {-1.0, -2.0, -3.0, -4.0}
