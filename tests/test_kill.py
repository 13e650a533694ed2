"""``kill -9`` at any instant costs at most the calls in flight, and a resumed run is the unbroken one."""

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from influence_cli.store.check import check_run
from influence_cli.store.reader import RunReader
from influence_cli.store.run_directory import open_run
from influence_cli.testing.server import serve

CONVERSATIONS = 256
KILLS = 20
RACE = 2
"""Answers a kill that may have left the server after it was asked what is in flight, or are not in the store yet."""


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "influence_cli", "simulate", *arguments, "--quiet", "--json"]


def begin(folder: Path, base_url: str, environment: Path) -> list[str]:
    settings = ["--env", str(environment), "--n", str(CONVERSATIONS), "--model", "openai:test-model"]
    # Ratings may need a second look, two requests for one call; here each call is one request, so that they can be told.
    settings += ["--preference", "scripted:demo"]
    return command(*settings, "--base-url", base_url, "--concurrency", "32", "--seed", "5", "--out", str(folder))


def trajectories(folder: Path) -> dict[tuple[str, str, int], dict]:
    with RunReader(open_run(folder)) as run:
        return {(t["scenario"], t["initial_state"], t["sample"]): t for t in run.trajectories()}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_twenty_kills_lose_no_turn_and_pay_for_nothing_twice(tmp_path, repository, tiny_folder):
    environment = repository / "environments" / "therapy"
    clock = random.Random(2026)
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    env = {name: value for name, value in os.environ.items() if name != "OPENAI_API_KEY"}
    in_flight = 0
    with serve(latency=0.5, spread=0.8, seed=3) as server:
        arguments = begin(killed, server.base_url, environment)
        for _ in range(KILLS):
            process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=env)
            before = server.stats()["requests"]
            while server.stats()["requests"] == before and process.poll() is None:
                time.sleep(0.01)
            time.sleep(clock.uniform(0.0, 1.0))
            assert process.poll() is None, process.communicate()[1]
            in_flight += server.stats()["in_flight"]
            process.kill()
            process.communicate()
            assert check_run(open_run(killed)) == []
            arguments = command("--resume", str(killed))
        done = subprocess.run(arguments, capture_output=True, text=True, env=env, check=False)
        assert done.returncode == 0, done.stderr
        bodies = server.bodies()
        server.reset()
        subprocess.run(begin(whole, server.base_url, environment), check=True, capture_output=True, env=env)
    repeated = sum(bodies.values()) - len(bodies)
    print(f"{KILLS} kills; {in_flight} calls in flight at them; {repeated} repeated of {sum(bodies.values())}")
    assert json.loads(done.stdout)["state"] == "done"
    assert repeated <= in_flight + RACE * KILLS
    assert check_run(open_run(killed)) == []
    resumed, unbroken = trajectories(killed), trajectories(whole)
    assert len(resumed) == CONVERSATIONS
    assert {t["status"] for t in resumed.values()} == {"complete"}
    assert {key: said(t) for key, t in resumed.items()} == {key: said(t) for key, t in unbroken.items()}


def said(trajectory: dict) -> object:
    messages = sorted((m["turn"], m["speaker"], m["text"]) for m in trajectory["messages"])
    judged = [
        (j["turn"], role, j[role]["expected"], j[role]["outcome"])
        for j in trajectory["judgements"]
        for role in sorted(j)
        if role != "turn"
    ]
    return messages, judged, trajectory["reason"], trajectory["mean_rating"]
