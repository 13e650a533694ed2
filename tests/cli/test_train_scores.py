"""``influence train`` where a score is the reward: its stage ends, fails, is paid for and goes on as the others do."""

import json
import signal
import time

import pytest
from tests.waiting import told

from influence_cli.scoring.scorers import ReplyLength
from influence_cli.simulation.gate import follow
from influence_cli.store.reader import RunReader
from influence_cli.store.run_directory import open_run

JUDGES = r"""
choices:
  - {role: judge, reply: '(?s)^(?:\S+\s+){0,19}\S+$', weights: {"10": 1}}
  - {role: judge, weights: {"2": 1}}
"""
"""A judge who likes replies of at most twenty words."""
FAILS = "failures: [{{role: judge, kind: server_error, share: {share}}}]\n"
ARGUMENTS = (
    *("-m", "scripted:demo", "--algo", "scripted", "--turns", "1", "--no-veto", "--judge", "scripted:judge.yaml"),
    *("--samples", "4", "--iterations", "2", "--top", "0.5", "--level", "environment", "--set", "evaluation.samples=2"),
    *("--out", "made", "--json"),
)
REWARD = ("--reward", "score", "--set", "selection.rubric=manipulation")


@pytest.fixture
def train(influence, tiny_folder, script):
    """Train in the tiny environment by heart, with a judge that a test can spoil; it is over in a moment."""
    script(JUDGES, "judge.yaml")

    def run(*arguments, reward=REWARD):
        return influence("train", "--env", tiny_folder, *ARGUMENTS, *reward, *arguments)

    return run


@pytest.fixture
def stored(place):
    """Return the rows of a query about the run ``made``."""

    def rows(sql):
        with RunReader(open_run(place / "made")) as run:
            return [tuple(row) for row in run.rows(sql)]

    return rows


def stages(stored):
    """Return what came of every finished stage."""
    found = stored("SELECT iteration, name, data FROM stage WHERE finished NOT NULL")
    return {(iteration, name): json.loads(data) for iteration, name, data in found}


SCORES = "SELECT count(*) FROM score WHERE rubric = 'manipulation' AND failure IS NULL"
TALKS = "SELECT count(*) FROM trajectory WHERE status = 'complete'"
USED = "SELECT sum((prompt_tokens + completion_tokens) * (1 - cached)) FROM call"


@pytest.mark.parametrize("share", [1.0, 0.6])
def test_a_judge_that_fails_too_often_stops_the_run_and_one_that_is_mended_goes_on(
    train, influence, script, stored, share
):
    script(FAILS.format(share=share), "judge.yaml")
    answer = train()
    assert answer.code == 1
    assert "scores failed (most: server error), more than the 10% that max_failed_share allows" in answer.stderr
    assert "They are tried again with --resume." in answer.stderr
    assert (0, "score") not in stages(stored)
    script(JUDGES, "judge.yaml")
    answer = influence("train", "--resume", "made", "--json")
    assert answer.code == 0, answer.stderr
    assert stored(SCORES) == stored(TALKS)
    assert [row["heldout"]["unrated"] for row in answer.document["iterations"]] == [0, 0, 0]


def test_as_many_scores_may_fail_as_are_allowed_and_they_are_counted(train, script):
    script(FAILS.format(share=0.4), "judge.yaml")
    answer = train("--set", "max_failed_share=1", "--iterations", "1")
    assert answer.code == 0, answer.stderr
    first = answer.document["iterations"][0]
    assert first["heldout"]["unrated"] + first["train"]["unrated"] > 0


def test_a_scorer_that_fails_too_often_stops_the_run_and_one_that_is_mended_goes_on(train, influence, monkeypatch):
    def broken(self, trajectory, environment):
        raise ZeroDivisionError

    with monkeypatch.context() as spoilt:
        spoilt.setattr(ReplyLength, "scores", broken)
        answer = train(reward=("--reward", "score", "--set", "selection.rubric=reply-length"))
    assert answer.code == 1
    assert "conversations failed in the scorer reply-length (see the run's log), more than the 10% " in answer.stderr
    assert influence("train", "--resume", "made").code == 0


def test_a_budget_counts_judges_while_they_judge_and_ever_after(train, influence, stored, place):
    assert train().code == 0
    whole = stages(stored)
    talked = whole[0, "evaluate"]["tokens"] + whole[0, "simulate"]["tokens"]
    judged = whole[0, "score"]["tokens"]
    assert min(talked, judged) > 1000
    (place / "made").rename(place / "whole")

    stopped = train("--concurrency", "1", "--max-tokens", talked + judged // 2)
    assert (stopped.code, stopped.document["state"]) == (3, "stopped"), stopped.stderr
    assert stopped.document["reason"] == f"the budget of {talked + judged // 2:,} tokens is used up"
    assert (0, "simulate") in stages(stored)
    assert (0, "score") not in stages(stored)
    assert 0 < stored(SCORES)[0][0] < stored(TALKS)[0][0]
    assert stored(USED)[0][0] < talked + judged

    again = influence("train", "--resume", "made", "--max-tokens", talked + judged + 100, "--json")
    assert again.code == 3
    assert stages(stored)[0, "score"]["scores"] == whole[0, "score"]["scores"]
    assert stored(USED)[0][0] < talked + judged + judged // 2  # not another budget for the next iteration

    done = influence("train", "--resume", "made", "--max-tokens", "100000000", "--json")
    assert done.code == 0, done.stderr
    assert stored(SCORES) == stored(TALKS)


def test_what_judges_cost_counts_against_the_dollars_of_a_run(train, stored):
    free, dear = "{prompt: 0.0, completion: 0.0}", "{prompt: 1000000.0, completion: 0.0}"
    prices = f'prices={{"scripted:demo": {free}, "scripted:judge.yaml": {dear}}}'
    answer = train("--set", prices, "--max-cost", "1", "--concurrency", "1")
    assert (answer.code, answer.document["reason"]) == (3, "the budget of $1 is used up"), answer.stderr
    assert stored(SCORES) == [(1,)]


def test_a_stage_tells_the_tokens_of_its_own_in_all_its_sittings(train, influence, stored):
    train("--max-tokens", "2000")
    assert influence("train", "--resume", "made", "--max-tokens", "100000000").code == 0
    told = {key: data["tokens"] for key, data in stages(stored).items() if key[1] in ("evaluate", "simulate", "score")}
    assert [(sum(told.values()),)] == stored(USED)


def test_a_pause_holds_every_stage_that_asks_models(train, stored, monkeypatch):
    async def paused_at_first(gate, _paused, told):
        looks = iter([True])
        await follow(gate, lambda: next(looks, False), told)

    monkeypatch.setattr("influence_cli.training.conversing.follow", paused_at_first)
    answer = train("--iterations", "1")
    assert answer.code == 0, answer.stderr
    found = dict(stored("SELECT kind, count(*) FROM event GROUP BY kind"))
    asking = [name for _, name in stages(stored) if name in ("evaluate", "simulate", "score")]
    assert (found["pause"], found["unpause"]) == (len(asking), len(asking)) == (5, 5)


def test_a_pause_that_an_earlier_sitting_left_behind_holds_nothing(train, influence, place):
    assert train("--max-tokens", "2000").code == 3
    (place / "made/run.pause").write_text("somebody\n")
    assert influence("train", "--resume", "made", "--max-tokens", "100000000").code == 0
    assert not (place / "made/run.pause").exists()


# -- signals ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def scoring(begin, tiny_folder, script):
    """Train until scores are asked for, each of which takes ``latency`` seconds, and return the process."""
    script(JUDGES, "judge.yaml")

    def start(latency):
        slow = ("--set", f"roles.judge.options.latency={latency}", "--concurrency", "1")
        process = begin("train", "--env", tiny_folder, *ARGUMENTS, *REWARD, *slow)
        told(process, "Iteration 0, scores")
        return process

    return start


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_signal_stops_the_asking_for_scores_and_the_run_goes_on(scoring, influence, stored, number):
    process = scoring(1.0)
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=100)
    assert process.returncode == 3, stderr
    assert "Stopping: what is in flight gets 10 s to finish; once more to stop now." in stderr
    document = json.loads(stdout)
    assert (document["state"], document["reason"]) == ("stopped", "stopped by a signal")
    assert {name for _, name in stages(stored)} == {"evaluate", "simulate"}
    kept = stored(SCORES)[0][0]
    assert 0 < kept < stored(TALKS)[0][0]
    resumed = influence("train", "--resume", "made", "--set", "roles.judge.options.latency=0")
    assert resumed.code == 0, resumed.stderr
    assert stored(SCORES) == stored(TALKS) == stored("SELECT count(*) FROM call WHERE role = 'judge'")


def test_two_signals_stop_the_asking_for_scores_at_once(scoring, stored):
    process = scoring(60)
    process.send_signal(signal.SIGINT)
    told(process, "Stopping:")
    asked = time.monotonic()
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=100)
    assert time.monotonic() - asked < 8  # one signal alone would have given 10 seconds
    assert (process.returncode, json.loads(stdout)["state"]) == (3, "stopped"), stderr
    assert "Traceback" not in stderr
    assert stored(SCORES) == [(0,)]
