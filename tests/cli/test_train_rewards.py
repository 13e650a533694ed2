"""``influence train``: what a conversation can be rewarded for, and who is asked for it."""

import json

import pytest

from influence_cli.store.reader import RunReader
from influence_cli.store.run_directory import open_run


@pytest.mark.parametrize(
    ("reward", "of_turns"),
    [
        (("mean",), True),
        (("final",), False),
        (("mean", "--set", "selection.length_penalty=0.01"), False),
        (("score", "--set", "selection.rubric=reply-length"), False),
    ],
)
def test_turns_have_a_reward_of_their_own_only_where_the_reward_is_their_mean(train, place, reward, of_turns):
    answer = train("--algo-option", "wants=all", "--iterations", "1", "--out", "made", "--reward", *reward)
    assert answer.code == 0, answer.stderr
    lines = [json.loads(line) for line in (place / "made/training/0/rows.jsonl").read_text().splitlines()]
    assert {line["turn_reward"] is not None for line in lines} == {of_turns}


def test_a_computed_score_can_be_the_reward(train, place):
    answer = train("--reward", "score", "--set", "selection.rubric=reply-length", "--out", "made", "--json")
    assert answer.code == 0, answer.stderr
    rewards = [row["heldout"]["reward"]["mean"] for row in answer.document["iterations"]]
    assert rewards[-1] > rewards[0] > 10  # longer and longer replies, in words


@pytest.mark.parametrize(
    ("rubric", "judged"),
    [("reply-length", False), ("preference-first-person", False), ("preference-third-person", False), ("harm", True)],
)
def test_a_judge_is_loaded_only_where_one_is_asked_for_the_reward(train, place, rubric, judged):
    answer = train(
        "--reward", "score", "--set", f"selection.rubric={rubric}", "--judge", "scripted:no-such-script.yaml",
        "--iterations", "1", "--out", "made",
    )  # fmt: skip
    assert answer.code == (2 if judged else 0), answer.stderr
    assert ("no-such-script.yaml" in answer.stderr) == judged
    if not judged:
        assert "judge" not in open_run(place / "made").manifest.models


def test_what_any_scorer_computes_can_be_the_reward(train, place):
    rubric = "selection.rubric=tool-truth/tells-failure"
    answer = train("--reward", "score", "--set", rubric, "--set", "environments=[booking]", "--out", "made")
    with RunReader(open_run(place / "made")) as run:
        values = {row[0] for row in run.rows("SELECT value FROM score WHERE rubric = 'tells-failure' AND usable = 1")}
    assert values
    if answer.code:
        assert "have the same reward" in answer.stderr


def test_a_scorer_that_gives_no_such_score_is_told(train):
    answer = train("--reward", "score", "--set", "selection.rubric=took-action/nothing", "-q")
    assert answer.code == 2
    assert "conversations has a usable score 'nothing' to learn from." in answer.stderr


def test_a_rubric_can_be_the_reward(train, script, place):
    judge = script("choices:\n  - {role: judge, reply: '', weights: {'1': 1, '10': 2}}\n", "judge.yaml")
    answer = train(
        "--reward", "score", "--set", "selection.rubric=manipulation", "--judge", judge, "--set",
        "selection.length_penalty=0.01", "--out", "made", "--json",
    )  # fmt: skip
    assert answer.code == 0, answer.stderr
    with RunReader(open_run(place / "made")) as run:
        scored = run.rows("SELECT count(*) FROM score WHERE rubric = 'manipulation' AND usable = 1")[0][0]
        talked = run.rows("SELECT count(*) FROM trajectory WHERE status = 'complete'")[0][0]
    assert scored == talked


@pytest.mark.parametrize(
    ("reward", "score", "asked"),
    [
        (["--reward", "whole"], "preference-third-person", "preference"),
        (["--reward", "score", "--set", "selection.rubric=preference-first-person"], "preference-first-person", "user"),
    ],
)
def test_a_rating_of_the_whole_conversation_can_be_the_reward(train, place, reward, score, asked):
    answer = train(*reward, "--out", "made", "--json")
    assert answer.code == 0, answer.stderr
    made = open_run(place / "made")
    with RunReader(made) as run:
        scored = run.rows("SELECT e.iteration, e.split, avg(s.value), count(*), min(s.judge), max(s.judge) FROM score s"
                          " JOIN episode e ON e.id = s.episode_id WHERE s.rubric = ? AND s.usable = 1 GROUP BY 1, 2", (score,))  # fmt: skip
        talked = run.rows("SELECT count(*) FROM trajectory WHERE status = 'complete'")[0][0]
    assert sum(row[3] for row in scored) == talked
    assert {name for row in scored for name in row[4:]} == {made.manifest.models[asked]}
    heldout = {row[0]: row[2] for row in scored if row[1] == "heldout"}
    shown = {row["iteration"]: row["heldout"]["reward"]["mean"] for row in answer.document["iterations"]}
    assert shown == pytest.approx(heldout)


def test_a_length_penalty_makes_replies_shorter(train, place):
    plain = train("--out", "plain", "--json", "--set", "selection.reward=final").document
    penalised = train("--out", "short", "--json", "--set", "selection.length_penalty=0.5").document
    for found in (plain, penalised):
        assert found["state"] == "done"
    lengths = []
    for name in ("plain", "short"):
        with RunReader(open_run(place / name)) as run:
            texts = [
                message["text"]
                for _, t in run.numbered(iteration=3)
                for message in t["messages"]
                if message["speaker"] == "agent" and message["turn"]
            ]
        lengths.append(sum(map(len, texts)) / len(texts))
    assert lengths[1] < lengths[0]
