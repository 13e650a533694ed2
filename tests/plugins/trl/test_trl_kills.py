"""``kill -9`` of a whole training run with a real model and real training, at instants drawn over all of it."""

import json
import random
import subprocess
import sys
import time
from hashlib import sha256
from pathlib import Path

import pytest

from influence_cli.store.check import check_run
from influence_cli.store.reader import RunReader
from influence_cli.store.run_directory import open_run
from influence_cli.training.adapters import adapter_digest

KILLS = 10
ITERATIONS = 2
TRAINING = {"learning_rate": 1e-2, "batch": 2, "micro_batch": 2, "epochs": 4, "checkpoint_steps": 1, "threads": 1}


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "influence_cli", "train", *arguments, "--quiet", "--json"]


def begin(folder: Path, environment: Path, model: Path) -> list[str]:
    who = ["--env", str(environment), "-m", "scripted:demo", "--agent", f"transformers:{model}", "--no-veto"]
    size = ["--turns", "2", "--max-reply-tokens", "12", "--samples", "4", "--top", "1/2", "--seed", "5"]
    how = [f"--algo-option={key}={value}" for key, value in TRAINING.items()]
    rest = ["--algo", "expert-iteration", "--iterations", str(ITERATIONS), "--out", str(folder)]
    return command(*who, *size, *how, *rest)


def learnt(folder: Path) -> dict[str, str]:
    """Digests of all that a run learnt, and learnt from."""
    adapters = {f"adapter {k}": adapter_digest(folder / "adapters" / str(k)) for k in range(1, ITERATIONS + 1)}
    files = {f"rows {k}": (folder / f"training/{k}/rows.jsonl").read_bytes() for k in range(ITERATIONS)}
    return adapters | {name: sha256(data).hexdigest() for name, data in files.items()}


def stages(folder: Path) -> dict[tuple[int, str], float]:
    with RunReader(open_run(folder)) as run:
        found = run.rows("SELECT iteration, name, finished FROM stage WHERE finished NOT NULL")
        return {(row["iteration"], row["name"]): row["finished"] for row in found}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ten_kills_of_real_training_end_in_the_same_adapters(tmp_path, tiny_folder, model):
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    started = time.monotonic()
    subprocess.run(begin(whole, tiny_folder, model), check=True, capture_output=True)
    seconds = time.monotonic() - started
    clock = random.Random(7)
    arguments = begin(killed, tiny_folder, model)
    kept: dict[tuple[int, str], float] = {}
    during = []
    for _ in range(KILLS):
        process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        while not (killed / "run.db").exists() and process.poll() is None:
            time.sleep(0.01)
        try:
            process.wait(clock.uniform(0.02, 0.4) * seconds)
        except subprocess.TimeoutExpired:
            process.kill()
        process.communicate()
        if process.returncode == 0:
            break
        assert process.returncode == -9
        assert check_run(open_run(killed)) == []
        now = stages(killed)
        assert {name: now[name] for name in kept} == kept, "a finished stage was repeated"
        kept = now
        during.append(len(now))
        arguments = command("--resume", str(killed))
    done = subprocess.run(command("--resume", str(killed)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    print(f"{len(during)} kills; stages finished at each: {during} of {len(stages(killed))}; unbroken {seconds:.0f} s")
    assert len(during) >= KILLS // 2
    assert json.loads(done.stdout)["state"] == "done"
    assert learnt(killed) == learnt(whole)
