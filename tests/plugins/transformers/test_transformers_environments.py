"""Every environment of the library, with the real small model."""

import os
import subprocess
import sys

import pytest

from influence_cli.store.check import check_run
from influence_cli.store.reader import RunReader
from influence_cli.store.run_directory import open_run


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_environment_of_the_library_runs_on_the_embedded_model(smollm2, repository, tmp_path):
    names = sorted(folder.parent.name for folder in (repository / "environments").glob("*/environment.yaml"))
    command = [sys.executable, "-m", "influence_cli", "simulate", "--n", str(len(names)), "--turns", "1"]
    command += [*(f"--env={name}" for name in names), "--max-reply-tokens", "24", "--out", str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=dict(os.environ))
    assert done.returncode == 0, done.stderr
    run = open_run(tmp_path / "run")
    assert check_run(run) == []
    with RunReader(run) as reader:
        trajectories = list(reader.trajectories())
    assert sorted(t["environment"] for t in trajectories) == names
    assert {t["status"] for t in trajectories} == {"complete"}
    assert all(t["judgements"] for t in trajectories)
