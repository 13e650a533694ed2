"""The loop with the embedded model and real training: the adapter that speaks is the one that was trained."""

import importlib.util
import json
import subprocess
import sys

import pytest

from influence_cli.training.adapters import adapter_digest

NEEDED = ("torch", "transformers", "trl", "peft")


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(any(importlib.util.find_spec(name) is None for name in NEEDED), reason="needs the train extra")
def test_the_embedded_model_is_trained_proved_and_spoken_with(tmp_path, repository):
    talk = repository / "benchmarks" / "environments" / "small-talk"
    arguments = [
        "--env", talk, "--scenario", "music", "-m", "scripted:demo", "--agent", "transformers:smollm2",
        "--preference", f"scripted:{talk / 'rater.yaml'}", "--no-veto", "--max-reply-tokens", "12",
        "--n", "12", "--samples", "1", "--heldout-n", "2", "--level", "environment", "--set", "selection.how=random", "--iterations", "2",
        "--algo", "expert-iteration", "--algo-option", "learning_rate=1e-4", "--algo-option", "batch=1",
        "--algo-option", "dtype=float32", "--out", tmp_path / "run", "--json", "--quiet",
    ]  # fmt: skip
    command = [sys.executable, "-m", "influence_cli", "train", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    first, second, last = json.loads(done.stdout)["iterations"]
    assert first["stages"]["train"]["moved"] > 0
    assert first["stages"]["train"]["digest"] == adapter_digest(tmp_path / "run/adapters/1")
    assert second["stages"]["train"]["digest"] == adapter_digest(tmp_path / "run/adapters/2")
    assert second["stages"]["prove"]["served"] is last["stages"]["prove"]["served"] is True
    assert second["agent"] == f"transformers:smollm2@{tmp_path}/run/adapters/1"
    assert last["heldout"]["complete"] == 2
