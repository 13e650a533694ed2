"""``influence score`` stopped by a budget, by Ctrl-C and by a kill: what was judged is stored, and only the rest is asked for."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from tests.waiting import told, wait_until

from influence_cli.testing.server import serve

from .conftest import JUDGE, rows

CONCURRENCY = 4
SCORING = """
from influence_cli.scoring import running
running.GRACE = {grace}
from influence_cli.__main__ import main
main()
"""


@pytest.fixture
def scoring(made_run):
    """Score with a judge that takes far longer than the test, and return the process once it has been asked."""
    started = []

    def start(grace: float) -> subprocess.Popen:
        asked = ("--with", "harm", "--judge", "scripted:demo", "-o", "latency=60", "--json")
        command = [sys.executable, "-c", SCORING.format(grace=grace), "score", str(made_run), *asked]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        started.append(process)
        told(process, "Judging")
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_a_used_up_budget_ends_with_code_three_and_the_same_command_goes_on(influence, made_run):
    stopped = influence(
        "score", made_run, "--with", "harm", *JUDGE, "--max-tokens", "600", "--concurrency", "1", "--json"
    )
    assert (stopped.code, stopped.document["state"], stopped.document["reason"]) == (3, "stopped", "tokens")
    rest = influence("score", made_run, "--with", "harm", *JUDGE, "--json")
    assert rest.code == 0
    assert rest.document["scores"]["known"] == stopped.document["scores"]["asked"]


def test_ctrl_c_stores_what_is_in_flight_and_ends_with_code_three(made_run):
    env = {name: value for name, value in os.environ.items() if name != "OPENAI_API_KEY"}
    with serve(latency=0.2, models=["test-model"]) as server:
        command = [
            sys.executable, "-m", "influence_cli", "score", str(made_run), "--with", "core,veto", "--json",
            "--judge", "openai:test-model", "--base-url", server.base_url, "--concurrency", "2",
        ]  # fmt: skip
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env, text=True)
        end = time.monotonic() + 60
        while server.stats()["requests"] < 8:
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < end
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 3, stderr
    found = json.loads(stdout)
    assert (found["state"], found["reason"]) == ("stopped", "signal")
    assert rows(made_run, "SELECT count(*) FROM score") == [(found["scores"]["asked"],)]
    assert "the same command goes on" in stderr or "Stopping" in stderr


def test_after_ctrl_c_what_is_in_flight_has_some_seconds_and_no_more(scoring, made_run):
    process = scoring(0.3)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=100)
    assert process.returncode == 3, stderr
    assert "Stopping: what is in flight gets 10 s to finish; once more to stop now." in stderr
    assert json.loads(stdout)["reason"] == "signal"
    assert rows(made_run, "SELECT count(*) FROM score") == [(0,)]


def test_a_second_ctrl_c_ends_at_once(scoring):
    process = scoring(60)
    process.send_signal(signal.SIGINT)
    told(process, "Stopping:")
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=100)
    assert (process.returncode, json.loads(stdout)["state"]) == (3, "stopped"), stderr
    assert "Traceback" not in stderr


@pytest.mark.timeout(180)
def test_kill_in_the_middle_and_only_what_is_missing_is_asked(made_run):
    """The server counts: what the second sitting repeats is at most what was in flight when the first one was killed."""
    env = {name: value for name, value in os.environ.items() if name != "OPENAI_API_KEY"}
    with serve(latency=0.1, models=["test-model"]) as server:
        command = [
            sys.executable, "-m", "influence_cli", "score", str(made_run), "--with", "core,veto", "--json", "-q",
            "--judge", "openai:test-model", "--base-url", server.base_url, "--concurrency", str(CONCURRENCY),
        ]  # fmt: skip
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=env)
        end = time.monotonic() + 60
        while server.stats()["requests"] < 40:
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < end
            time.sleep(0.02)
        process.send_signal(signal.SIGSTOP)  # so that it takes no answer and asks nothing while the server is looked at
        wait_until(lambda: server.stats()["in_flight"] == 0)
        answered = sum(server.bodies().values())
        process.kill()
        process.communicate()
        stored = rows(made_run, "SELECT count(*) FROM score")[0][0]
        assert stored > 0
        server.configure(latency=0.0)
        done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
        assert done.returncode == 0, done.stderr
        scores = json.loads(done.stdout)["scores"]
        assert (scores["known"], scores["failed"]) == (stored, {})
        repeated = sum(server.bodies().values()) - len(server.bodies())
    everything = rows(made_run, "SELECT count(*) FROM score")[0][0]
    assert everything == stored + scores["asked"]
    assert repeated <= answered - stored  # a score may take a second look
    assert repeated <= CONCURRENCY * everything // 8  # of the eight conversations, so many were being judged
