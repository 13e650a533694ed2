"""The same seed gives the same conversations, whatever the concurrency, over a real server and a real store."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from influence_cli.store.reader import RunReader
from influence_cli.store.run_directory import open_run
from influence_cli.testing.server import serve


def conversations(folder: Path) -> list[str]:
    """Every trajectory as text, in an order of its own."""
    with RunReader(open_run(folder)) as run:
        return sorted(json.dumps(trajectory, sort_keys=True) for trajectory in run.trajectories())


def simulate(out: Path, environment: Path, url: str, *more: str) -> list[str]:
    command = [sys.executable, "-m", "influence_cli", "simulate", "--env", str(environment), "--n", "48", "--quiet"]
    command += ["--model", "openai:test-model", "--base-url", url, "--out", str(out), *more]
    env = {name: value for name, value in os.environ.items() if name != "OPENAI_API_KEY"}
    subprocess.run(command, check=True, capture_output=True, env=env)
    return conversations(out)


@pytest.mark.slow
def test_concurrency_1_7_and_64_give_the_same_trajectories(tmp_path, tiny_folder):
    with serve(latency=0.004, spread=1.0, seed=3) as server:
        runs = {
            concurrency: simulate(
                tmp_path / concurrency, tiny_folder, server.base_url, "--concurrency", concurrency, "--seed", "9"
            )
            for concurrency in ("1", "7", "64")
        }
        other = simulate(tmp_path / "other", tiny_folder, server.base_url, "--seed", "10")
    assert len(runs["1"]) == 48
    assert runs["1"] == runs["7"] == runs["64"]
    assert other != runs["1"]
