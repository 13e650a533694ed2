"""A sweep that is killed twice ends as the unbroken one: no finished trial is repeated, an open one is taken up."""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from tests.waiting import wait_until

from influence_cli.store.reader import RunReader
from influence_cli.store.run_directory import open_run
from influence_cli.sweeps.records import TrialStore

TRIALS = 12
KILLS = 2


def begin(folder: Path, environment: Path, *more: str) -> list[str]:
    trial = ["--env", str(environment), "-m", "scripted:demo", "-o", "latency=0.02", "-o", "jitter=1"]
    learning = ["--algo", "scripted", "--algo-option", "seconds=0.1", "--iterations", "1", "--samples", "4"]
    space = ["--search", "strength=uniform(0.1,0.9)", "--search", "top=[1/4,1/2]", "--search", "turns=1..3"]
    return command(*trial, *learning, *space, "--trials", str(TRIALS), "--seed", "3", "--out", str(folder), *more)


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "influence_cli", "sweep", *arguments, "--quiet", "--json"]


def records(folder: Path) -> dict[int, object]:
    if not (folder / "sweep.db").is_file():
        return {}
    with TrialStore(folder, write=False) as store:
        return {trial.number: trial for trial in store.trials()}


def finished(folder: Path) -> int:
    """Return how many trials are done."""
    return sum(trial.state == "done" for trial in records(folder).values())


def said(run: Path) -> list:
    with RunReader(open_run(run)) as reader:
        return [
            (t["iteration"], t["split"], t["initial_state"], t["sample"], t["mean_rating"],
             [(m["turn"], m["speaker"], m["text"]) for m in t["messages"]])
            for t in sorted(reader.trajectories(), key=lambda t: (t["iteration"], t["split"], t["scenario"], t["initial_state"], t["sample"]))
        ]  # fmt: skip


def stages(run: Path) -> dict[tuple[int, str], float]:
    with RunReader(open_run(run)) as reader:
        found = reader.rows("SELECT iteration, name, finished FROM stage WHERE finished NOT NULL")
        return {(row["iteration"], row["name"]): row["finished"] for row in found}


def kill_at_work(arguments: list[str], folder: Path, wanted: int, after: float) -> None:
    """Start a command and kill it some time after so many trials are done."""
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        wait_until(lambda: finished(folder) >= wanted or process.poll() is not None, 240)
        assert process.poll() is None, process.stderr.read()
        time.sleep(after)
    finally:
        process.kill()
        process.communicate()


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("searcher", ["tpe", "random"])
def test_two_kills_end_as_the_unbroken_sweep(tmp_path, tiny_folder, searcher):
    if searcher == "tpe":
        pytest.importorskip("optuna")
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    clock = random.Random(2026)
    arguments = begin(killed, tiny_folder, "--searcher", searcher)
    kept: dict[int, object] = {}
    for kill in range(1, KILLS + 1):
        wanted = kill * TRIALS // (KILLS + 1)  # trials that are done before the kill comes
        kill_at_work(arguments, killed, wanted, clock.uniform(0.0, 1.0))
        now = records(killed)
        done = {number: trial for number, trial in now.items() if trial.state == "done"}
        assert wanted <= len(done) < TRIALS
        assert {number: now[number] for number in kept} == kept, "a finished trial was repeated"
        assert all(now[number].parameters for number in now)
        kept = done
        before = {number: stages(killed / f"trials/{number:03d}") for number in done}
        arguments = command("--resume", str(killed))
    ended = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    document = json.loads(ended.stdout)
    assert document["counts"]["done"] == TRIALS
    assert {number: records(killed)[number] for number in kept} == kept
    assert {number: stages(killed / f"trials/{number:03d}") for number in kept} == before

    subprocess.run(begin(whole, tiny_folder, "--searcher", searcher), check=True, capture_output=True)
    for number, trial in records(whole).items():
        other = records(killed)[number]
        assert (other.parameters, other.readings) == (trial.parameters, trial.readings), number
        assert said(killed / f"trials/{number:03d}") == said(whole / f"trials/{number:03d}")

    page = subprocess.run(
        [sys.executable, "-m", "influence_cli", "sweep", "report", str(killed)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert page.returncode == 0, page.stderr
    text = (killed / "report" / "report.html").read_text()
    assert "Importance for held-out reward" in text
    shares = document["importance"]["by_objective"]["heldout_reward"]
    assert {each["parameter"] for each in shares} == {"strength", "top", "turns"}


def at_work(process: psutil.Process) -> bool:
    """Whether a process runs: it is there, and no zombie."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_ctrl_c_ends_with_exit_code_3_and_leaves_no_process(tmp_path, tiny_folder):
    folder = tmp_path / "sweep"
    process = subprocess.Popen(
        begin(folder, tiny_folder, "--searcher", "random", "--parallel", "2"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    runs = [folder / f"trials/{number:03d}/run.db" for number in range(2)]
    children: list[psutil.Process] = []
    try:
        wait_until(lambda: any(run.is_file() for run in runs) or process.poll() is not None)
        assert process.poll() is None, process.communicate()
        children = psutil.Process(process.pid).children(recursive=True)
        assert children
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
        assert process.returncode == 3, stderr
        assert json.loads(stdout)["reason"] == "stopped by a signal"
        wait_until(lambda: not any(map(at_work, children)))
    finally:
        process.kill()
        process.communicate()
        for child in filter(at_work, children):
            child.kill()
    done = subprocess.run(
        command("--resume", str(folder), "--trials", "3"), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["counts"]["done"] == 3


@pytest.mark.slow
def test_trials_that_learn_badly_are_given_up_while_they_run(tmp_path, tiny_folder):
    pytest.importorskip("optuna")
    folder = tmp_path / "sweep"
    arguments = begin(folder, tiny_folder, "--searcher", "optuna-random", "--pruner", "halving")
    arguments[arguments.index("--iterations") + 1] = "3"
    arguments[arguments.index("--trials") + 1] = "6"
    arguments[arguments.index("seconds=0.1")] = "seconds=1.5"
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["counts"]["pruned"] >= 1
    assert document["counts"]["done"] >= 1
    for trial in document["trials"]:
        with RunReader(open_run(Path(trial["runs"][0]))) as run:
            assert run.state() == ("done" if trial["state"] == "done" else "stopped")
        assert bool(trial["values"]) == (trial["state"] == "done")
        if trial["state"] == "pruned":
            assert len(trial["steps"]) < 3
            assert "after iteration" in trial["reason"]
