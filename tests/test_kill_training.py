"""``kill -9`` at any instant of a training run repeats no finished stage, and a resumed run is the unbroken one."""

import json
import random
import signal
import subprocess
import sys
import time
from hashlib import sha256
from pathlib import Path

import pytest
from tests.waiting import wait_until

from influence_cli.store.check import check_run
from influence_cli.store.reader import RunReader
from influence_cli.store.run_directory import holder, open_run
from influence_cli.training.adapters import adapter_digest

KILLS = 10
ITERATIONS = 4


def begin(folder: Path, environment: Path) -> list[str]:
    settings = ["--env", str(environment), "-m", "scripted:demo", "-o", "latency=0.03", "-o", "jitter=1"]
    learning = ["--algo", "scripted", "--algo-option", "seconds=0.5", "--iterations", str(ITERATIONS)]
    return command(*settings, *learning, "--samples", "8", "--top", "1/4", "--seed", "5", "--out", str(folder))


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "influence_cli", "train", *arguments, "--quiet", "--json"]


def digests(folder: Path) -> dict[str, str]:
    """Of all that a run learnt, and learnt from."""
    adapters = {f"adapter {k}": adapter_digest(folder / "adapters" / str(k)) for k in range(1, ITERATIONS + 1)}
    rows = {
        f"rows {k}": sha256((folder / f"training/{k}/rows.jsonl").read_bytes()).hexdigest() for k in range(ITERATIONS)
    }
    return {**adapters, **rows}


def stages(folder: Path) -> dict[tuple[int, str], float]:
    with RunReader(open_run(folder)) as run:
        found = run.rows("SELECT iteration, name, finished FROM stage WHERE finished NOT NULL")
        return {(row["iteration"], row["name"]): row["finished"] for row in found}


def said(folder: Path) -> dict:
    with RunReader(open_run(folder)) as run:
        return {
            (t["iteration"], t["split"], t["scenario"], t["initial_state"], t["sample"]): (
                [(m["speaker"], m["text"]) for m in sorted(t["messages"], key=lambda m: (m["turn"], m["speaker"]))],
                t["mean_rating"],
            )
            for t in run.trajectories()
        }


def killed_at_work(arguments: list[str], folder: Path, after: float) -> bool:
    """Start a command and kill it some time after it took up the run; return whether it was still at work."""
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: (folder.exists() and holder(folder)) or process.poll() is not None)
        time.sleep(after)
        return process.poll() is None
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_ten_kills_end_as_the_unbroken_run(tmp_path, tiny_folder):
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    subprocess.run(begin(whole, tiny_folder), check=True, capture_output=True)
    clock = random.Random(2026)
    arguments = begin(killed, tiny_folder)
    kept: dict[tuple[int, str], float] = {}
    kills = 0
    while kills < KILLS:
        if not killed_at_work(arguments, killed, clock.uniform(0.1, 1.3)):
            break
        kills += 1
        assert check_run(open_run(killed)) == []
        now = stages(killed)
        assert {name: now[name] for name in kept} == kept, "a finished stage was repeated"
        kept = now
        arguments = command("--resume", str(killed))
    done = subprocess.run(command("--resume", str(killed)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert kills >= KILLS // 2
    print(f"{kills} kills, with {len(kept)} of {len(stages(killed))} stages finished at the last")
    assert json.loads(done.stdout)["state"] == "done"
    assert digests(killed) == digests(whole)
    assert said(killed) == said(whole)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_training_ends_in_exit_code_3_and_a_run_that_goes_on(tmp_path, tiny_folder, number):
    folder = tmp_path / "run"
    settings = ["--env", str(tiny_folder), "-m", "scripted:demo", "--algo", "scripted", "--algo-option", "seconds=30"]
    settings += ["--iterations", "1", "--samples", "3", "--top", "1/2", "--out", str(folder)]
    process = subprocess.Popen(command(*settings), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        wait_until(lambda: (folder / "training/0/job").exists() or process.poll() is not None)
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=100)  # a signal just before a sleep is heard after it
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 3, stderr
    assert json.loads(stdout)["state"] == "stopped"
    assert (0, "select") in stages(folder)
    assert (0, "train") not in stages(folder)
