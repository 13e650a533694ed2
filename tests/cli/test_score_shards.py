"""Scores that shards made are those that one process would have made, asked for once."""

import json
import os
import signal
import subprocess
import sys

import pytest
from tests.waiting import wait_until

from influence_cli.errors import InfluenceError
from influence_cli.store.check import check_run
from influence_cli.store.run_directory import open_run

from .conftest import rows

SCORES = (
    "SELECT e.scenario, e.initial_state, e.sample, s.turn, s.rubric, s.judge, s.method, s.value, s.mass, s.usable FROM score s"
    " JOIN episode e ON e.id = s.episode_id ORDER BY 1, 2, 3, 4, 5, 6"
)


def score(influence, run, *arguments):
    return influence("score", run, "--judge", "scripted:demo", "--with", "harm,environment,reply-length", *arguments)


@pytest.fixture
def scored(made_run, influence, simulate):
    """A run of the same eight conversations, scored by one process."""
    other = made_run.with_name("other")
    assert simulate("--n", "8", "--out", other, "--quiet").code == 0
    answer = score(influence, other, "--json")
    assert answer.code == 0, answer.stderr
    return other, answer.document


def test_scores_of_shards_equal_those_of_one_process(made_run, influence, scored):
    other, expected = scored
    answer = score(influence, made_run, "--shards", "2", "--json")
    assert answer.code == 0, answer.stderr
    assert rows(made_run, SCORES) == rows(other, SCORES)
    assert check_run(open_run(made_run)) == []
    document = answer.document
    for name in ("state", "rubrics", "scorers", "judges", "scores", "figures", "disagreements", "shifts"):
        assert document[name] == expected[name], name
    for name in ("calls", "requests", "prompt_tokens", "completion_tokens", "cost"):
        assert document["calls"][name] == expected["calls"][name], name


def test_what_is_scored_is_not_asked_again_whoever_scored_it(made_run, influence):
    first = score(influence, made_run, "--limit", "4", "--json").document["scores"]
    second = score(influence, made_run, "--shards", "2", "--json").document["scores"]
    third = score(influence, made_run, "--json").document["scores"]
    assert first["asked"] == second["asked"] == second["known"]
    assert (third["asked"], third["known"]) == (0, first["asked"] + second["asked"])
    calls = rows(made_run, "SELECT count(*) FROM call WHERE role = 'judge'")[0][0]
    assert calls == first["asked"] + second["asked"]


def test_budgets_hold_over_all_shards(made_run, influence):
    answer = score(influence, made_run, "--shards", "2", "--max-tokens", "2000", "--concurrency", "2", "--json")
    assert answer.code == 3, answer.stderr
    assert (answer.document["state"], answer.document["reason"]) == ("stopped", "tokens")
    used = answer.document["calls"]["prompt_tokens"] + answer.document["calls"]["completion_tokens"]
    assert 2000 <= used < 6000
    assert score(influence, made_run, "--json").code == 0


def test_what_shards_scored_whose_minder_was_killed_is_not_asked_again(made_run, influence, scored):
    _, expected = scored
    assert score(influence, made_run, "--shard", "1/2", "--quiet").code == 0  # nobody merges it
    answer = score(influence, made_run, "--json")
    assert (answer.code, answer.document["scores"]["known"]) == (0, expected["scores"]["asked"] // 2)
    assert rows(made_run, "SELECT count(*) FROM call WHERE role = 'judge'") == [(expected["calls"]["calls"],)]
    assert rows(made_run, SCORES) == rows(scored[0], SCORES)


@pytest.mark.parametrize("arguments", [["--shards", "2", "--batch"], ["--shard", "1/2", "--probes", "--control"]])
def test_what_cannot_be_split_is_refused(made_run, influence, arguments):
    answer = score(influence, made_run, *arguments)
    assert answer.code == 2
    assert "error: Batches and controls belong to the whole run. Leave out the shards." in answer.stderr


def test_a_mistake_that_a_shard_finds_is_one_line(made_run, influence, script):
    model = script("nonsense: 1")
    answer = influence("score", made_run, "--judge", model, "--with", "harm", "--shards", "2")
    assert answer.code == 2
    assert "Unknown key 'nonsense'" in answer.stderr


PRICES = "prices={scripted:demo: {prompt: 1, completion: 1e-3}}"


@pytest.mark.parametrize(
    "said",
    [
        ["--set", "default.model=scripted:demo"],
        ["--with", "harm,reply-length", "--judge", "scripted:demo", "--limit", "3"],
        ["--probes", "--user", "scripted:demo", "--method", "vote", "--votes", "7", "--debias", "orders,directions"],
        [
            "--with",
            "harm",
            "--judge",
            "scripted:demo",
            "-o",
            "latency=0.5",
            "--seed",
            "3",
            "--concurrency",
            "64",
            "--max-tokens",
            "90000",
        ],
        [
            "--with",
            "harm",
            "--judge",
            "scripted:demo",
            "--set",
            PRICES,
            "--max-cost",
            "1.5",
            "--max-failed-share",
            "0.5",
        ],
        ["--with", "harm", "--set", "judges.draws=7", "--set", "roles.judge.model=scripted:demo"],
    ],
)
def test_a_shard_is_told_all_that_was_asked_for(made_run, influence, monkeypatch, said):
    asked = []

    def remember(resolved, request, *_):
        asked.append((resolved, request))
        raise InfluenceError("Enough.")

    monkeypatch.setattr("influence_cli.sittings.score.going.have_scores", remember)
    influence("score", "latest", *said)
    resolved, request = asked[0]
    influence("score", made_run, *resolved.arguments(request))
    again, repeated = asked[1]
    assert again.config == resolved.config
    assert (again.wanted, repeated.asking, repeated.limit) == (resolved.wanted, request.asking, request.limit)


def test_a_run_that_is_called_like_the_command_is_scored_by_shards(made_run, influence):
    made_run.rename(made_run.with_name("score"))
    answer = score(influence, "score", "--shards", "2", "--json")
    assert answer.code == 0, answer.stderr
    assert answer.document["scores"]["asked"] > 0


def test_a_shard_that_is_none_is_refused_before_a_judge_is_loaded(made_run, influence, place):
    answer = influence("score", made_run, "--judge", f"scripted:{place / 'nowhere.yaml'}", "--shard", "3/2")
    told = "error: --shard '3/2' is not NUMBER/OF. For instance 2/4: the second of four.\n"
    assert (answer.code, answer.stderr) == (2, told)


@pytest.fixture
def by_hand(simulate, place):
    """A run whose eight conversations are in its two shards alone."""
    for shard in ("1/2", "2/2"):
        assert simulate("--n", "8", "--out", "runs/made", "--quiet", "--shard", shard).code == 0
    return place / "runs" / "made"


def test_what_shards_by_hand_hold_is_scored(by_hand, influence):
    told = "error: What runs/made holds is in its shards alone. Bring it together: influence runs merge runs/made\n"
    for command in (["runs", "show", "made"], ["runs", "check", "made"], ["score", "made", "--dry-run"]):
        answer = influence(*command)
        assert (answer.code, answer.stderr) == (2, told)
    assert told.removeprefix("error: ") in influence("runs", "list").stderr
    assert influence("score", "made", "--with", "reply-length", "--json").document["figures"][0]["n"] > 8
    assert influence("runs", "show", "made", "--json").document["conversations"]["complete"] == 8


def test_a_run_whose_complete_conversations_are_in_shards_is_scored(by_hand, influence):
    with open_run(by_hand).writer():
        pass  # it has a database now, and nothing in it
    answer = influence("score", "made", "--shard", "1/2", "--with", "reply-length")
    told = "has no complete conversation to score: none. Its shards hold more: influence runs merge runs/made"
    assert (answer.code, told in answer.stderr) == (2, True)
    assert influence("score", "made", "--with", "reply-length", "--shards", "2", "-q").code == 0


def test_an_estimate_says_what_shards_alone_hold(simulate, influence):
    for shard in ("1/2", "2/2"):
        assert simulate("--n", "8", "--out", "runs/made", "--quiet", "--shard", shard).code == 0
        if shard == "1/2":
            assert influence("runs", "merge", "made").code == 0
    answer = influence("score", "made", "--with", "reply-length", "--dry-run")
    assert (answer.code, "4 conversations of runs/made, or scores of them, are in its shards" in answer.stderr) == (
        0,
        True,
    )


def test_scores_that_no_shard_could_make_are_missing_and_told(made_run, influence, monkeypatch):
    monkeypatch.setenv("PYTHONHASHSEED", "no number")  # no Python starts with this, and its exit code is 1
    answer = score(influence, made_run, "--shards", "1", "--restarts", "0", "--json")
    assert answer.code == 1
    reason = "shard 1/1 was given up: died with exit code 1"
    assert f"Scores are missing: {reason}. The same command goes on." in answer.stderr
    assert (answer.document["state"], answer.document["reason"]) == ("stopped", reason)


def test_what_would_fail_again_is_not_asked_again_and_counts_over_the_whole(made_run, influence, script):
    model = script("failures:\n  - {role: judge, kind: refused}\n")
    ask = ("score", made_run, "--judge", model, "--with", "harm", "--shards", "2", "--json")
    answer = influence(*ask)
    assert answer.code == 1
    assert "started again" not in answer.stderr
    assert "8 of 8 scores failed, more than --max-failed-share allows" in answer.stderr
    assert answer.document["scores"]["failed"] == {"refused": 8}


def test_what_may_be_over_soon_is_asked_again(made_run, influence, script):
    model = script("failures:\n  - {role: judge, kind: timeout}\n")
    answer = influence("score", made_run, "--judge", model, "--with", "harm", "--shards", "1", "--restarts", "1")
    assert answer.code == 1
    assert "scores failed (timeout); started again (1 of 1)." in answer.stderr
    assert "Scores are missing: shard 1/1 was given up: " in answer.stderr


def test_a_shard_of_scores_can_be_made_by_hand(made_run, influence, scored):
    for shard in ("1/2", "2/2"):
        assert score(influence, made_run, "--shard", shard, "--quiet").code == 0
    assert rows(made_run, "SELECT count(*) FROM score") == [(0,)]
    told = "8 conversations of {}, or scores of them, are in its shards alone and are left out: influence runs merge {}"
    labels = made_run.parent / "labels.csv"
    labels.write_text("episode,turn,rubric,label,annotator\n1,1,harm,1,me\n")
    reading = [
        ("runs", "show", made_run),
        ("runs", "search", made_run, "tea"),
        ("export", made_run, "--to", "jsonl", "--out", "-"),
        ("score", "calibrate", made_run, "--labels", labels),
        ("view", made_run, "--export-svg", made_run.parent / "screen.svg"),
    ]
    for command in reading:
        assert told.format(made_run, made_run) in influence(*command).stderr.replace("\n", " "), command
    assert influence("runs", "merge", made_run).code == 0
    assert influence("runs", "show", made_run).stderr == ""
    assert rows(made_run, SCORES) == rows(scored[0], SCORES)


@pytest.mark.timeout(300)
def test_a_shard_that_is_killed_goes_on_and_pays_for_nothing_twice(made_run, influence, place, scored):
    command = [
        sys.executable,
        "-m",
        "influence_cli",
        "score",
        str(made_run),
        "--judge",
        "scripted:demo",
        "-o",
        "latency=0.5",
    ]
    command += ["--with", "harm,environment,reply-length", "--concurrency", "2", "--shards", "2", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=place)
    try:
        beat = made_run / "logs" / "shard-1of2.json"
        wait_until(lambda: read(beat).get("calls") or process.poll() is not None)
        assert process.poll() is None, process.communicate()
        os.kill(read(beat)["process"], signal.SIGKILL)
        stdout, stderr = process.communicate(timeout=240)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 0, stderr
    assert "Shard 1/2: died of signal 9; started again (1 of 3)." in stderr
    other, expected = scored
    assert rows(made_run, SCORES) == rows(other, SCORES)
    assert json.loads(stdout)["calls"]["calls"] == expected["calls"]["calls"]


def read(beat) -> dict:
    try:
        return json.loads(beat.read_bytes())
    except (OSError, ValueError):
        return {}
