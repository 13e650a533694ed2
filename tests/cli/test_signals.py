"""Ctrl-C on the real command line: once ends resumably, twice at once."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from tests.commands import conversations
from tests.waiting import wait_until

from influence_cli.store.check import check_run
from influence_cli.store.run_directory import open_run

FAR_LONGER_THAN_THE_TEST = "60"


@pytest.fixture
def talking(begin, place, tiny_folder):
    """Start a simulation whose every answer takes ``latency`` seconds, and wait until it talks."""

    def start(latency: str) -> subprocess.Popen:
        settings = ("-m", "scripted:demo", "-o", f"latency={latency}", "--n", "8", "--concurrency", "2")
        process = begin("simulate", "--env", tiny_folder, *settings, "--out", "made", "--json")
        wait_until(lambda: conversations(place / "made" / "run.db") or process.poll() is not None)
        assert process.poll() is None, process.communicate()
        return process

    return start


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_signal_finishes_what_is_in_flight_and_says_how_to_go_on(talking, influence, place, number):
    process = talking("0.2")
    os.kill(process.pid, number)
    stdout, stderr = process.communicate(timeout=100)
    assert process.returncode == 3, stderr
    assert "Stopping: what is in flight gets 10 s to finish; once more to stop now." in stderr
    assert "Traceback" not in stderr
    document = json.loads(stdout)
    assert (document["state"], document["reason"]) == ("stopped", "stopped by a signal")
    assert check_run(open_run(place / "made")) == []
    resumed = influence("simulate", "--resume", "made", "-o", "latency=0", "--json")
    assert resumed.code == 0, resumed.stderr
    counts = resumed.document["conversations"]
    assert counts["complete"] + counts["earlier"] == 8


def test_two_signals_stop_at_once(talking, place):
    process = talking(FAR_LONGER_THAN_THE_TEST)
    process.send_signal(signal.SIGINT)
    while not (said := process.stderr.readline()).startswith("Stopping:"):  # two that come at once are heard as one
        assert said, process.communicate()
    asked = time.monotonic()
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=100)
    assert time.monotonic() - asked < 8  # one signal alone would have given 10 seconds
    assert process.returncode == 3, stderr
    assert json.loads(stdout)["state"] == "stopped"
    assert "Traceback" not in stderr
    assert check_run(open_run(place / "made")) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_a_command_works_without_a_loop_ends_it_with_three(place, number):
    # Short sleeps: a signal between two instructions is heard after the next one, however long that takes.
    work = "(print(1, flush=True), [time.sleep(0.05) for _ in range(2400)])"
    patch = f"from influence_cli.plugins import facts; facts.offers = lambda _: {work}"
    start = "from influence_cli.__main__ import main; sys.argv = ['influence', 'plugins', 'list']; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", f"import sys, time\n{patch}\n{start}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout.readline() == "1\n"
        process.send_signal(number)
        _, stderr = process.communicate(timeout=100)
    finally:
        process.kill()
        process.communicate()
    assert (process.returncode, stderr) == (3, "Stopped.\n")


@pytest.mark.parametrize("command", ["simulate", "score", "train", "launched"])
def test_after_a_command_signals_do_what_they_did_before_it(influence, simulate, made_run, tiny_folder, command):
    """An event loop that ends would leave SIGTERM to end the process without a word."""

    def mine(number, frame):
        raise AssertionError

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, mine) for number in numbers}
    try:
        if command == "simulate":
            simulate("--n", "1", "--quiet")
        elif command == "launched":
            simulate("--n", "1", "--quiet", "--launcher", "local")
        elif command == "train":
            learning = ("--algo", "scripted", "--iterations", "1", "--samples", "3", "--top", "0.5")
            assert influence("train", "--env", tiny_folder, "-m", "scripted:demo", *learning, "-q").code == 0
        else:
            influence("score", made_run, "--with", "harm", "--judge", "scripted:demo")
        assert [signal.getsignal(number) for number in numbers] == [mine, mine]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
