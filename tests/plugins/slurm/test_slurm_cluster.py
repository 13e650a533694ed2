"""Jobs of a real SLURM: the conformance suite, a run as an array, requeueing before the time is up."""

import asyncio
import os
import signal
import subprocess
import sys
import time

import orjson
import pytest
from tests.commands import influence, said

from influence_cli.api import Resources, Task
from influence_cli.testing.launchers import LauncherConformance
from influence_slurm.launcher import SlurmLauncher
from influence_slurm.options import SlurmOptions

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(240),
    pytest.mark.usefixtures("slurm"),
    pytest.mark.xdist_group("slurm"),
]


class TestSlurm(LauncherConformance):
    """The conformance suite."""

    @pytest.fixture
    def make_launcher(self):
        return lambda: SlurmLauncher(SlurmOptions(poll=0.2, grace=20.0))


def test_a_run_is_an_array_of_four_and_one_that_is_killed_is_started_again(tmp_path, tiny_folder):
    settings = ["--env", tiny_folder, "-m", "scripted:demo", "--n", "16", "--seed", "5"]
    where = ["--shards", "4", "--launcher", "slurm", "--launcher-option", "poll=0.3", "--out", tmp_path / "split"]
    command = [sys.executable, "-m", "influence_cli", "simulate", *settings, "-o", "latency=0.5", *where, "--json"]
    with subprocess.Popen(
        list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        beat = tmp_path / "split" / "logs" / "shard-2of4.json"
        while not beat.exists():
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
        os.kill(orjson.loads(beat.read_bytes())["process"], signal.SIGKILL)
        stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    assert "Shard 2/4: died of signal 9; started again (1 of 3)." in stderr
    scripts = sorted((tmp_path / "split" / "logs").glob("slurm-*.sh"), key=lambda path: path.stat().st_mtime)
    assert [("--array=0-3" in script.read_text()) for script in scripts] == [True, False]
    assert orjson.loads(stdout)["conversations"]["complete"] == 16
    influence("simulate", *settings, "--out", tmp_path / "whole", "--quiet")
    assert said(tmp_path / "split") == said(tmp_path / "whole")


def test_jobs_whose_minder_was_killed_are_found_and_ended_and_the_run_goes_on(tmp_path, tiny_folder):
    settings = ["--env", tiny_folder, "-m", "scripted:demo", "--n", "8", "--seed", "5", "--concurrency", "2"]
    where = ["--shards", "2", "--launcher", "slurm", "--launcher-option", "poll=0.3"]
    run = tmp_path / "split"
    begin = ["simulate", *settings, "-o", "latency=1", *where, "--out", run, "--quiet"]
    with subprocess.Popen([sys.executable, "-m", "influence_cli", *map(str, begin)]) as process:
        while not (run / "logs" / "shard-1of2.json").exists():
            assert process.poll() is None
            time.sleep(0.05)
        process.kill()
    listed = orjson.loads(influence("jobs", "list", run, "--json"))["jobs"]
    assert {job["name"] for job in listed} == {"shard-1of2", "shard-2of2"}
    assert {job["state"] for job in listed} <= {"running", "waiting"}
    document = orjson.loads(influence("simulate", "--resume", run, "-o", "latency=0", *where, "--json"))
    assert document["conversations"]["complete"] + document["conversations"]["earlier"] == 8
    assert orjson.loads(influence("jobs", "list", run, "--json"))["jobs"] == []
    influence("simulate", *settings, "--out", tmp_path / "whole", "--quiet")
    assert said(run) == said(tmp_path / "whole")


async def test_before_its_time_is_up_a_job_stops_and_goes_on_in_a_new_one(tmp_path):
    mark = tmp_path / "mark"
    code = f"""
import pathlib, signal, sys, time
mark = pathlib.Path({str(mark)!r})
if mark.exists():
    print("went on")
    sys.exit(0)
signal.signal(signal.SIGTERM, lambda *_: (mark.touch(), sys.exit(3)))
print("begun", flush=True)
time.sleep(600)
"""
    # SLURM looks at times once in a while, so that the warning comes up to a minute early.
    launcher = SlurmLauncher(SlurmOptions(poll=0.5, warning=59))
    task = Task("limited", (sys.executable, "-c", code), tmp_path / "limited.log", Resources(minutes=1))
    job = await launcher.start(task)
    requeued = False
    while not requeued or (await job.status()).state != "waiting":
        assert (await job.status()).state in ("waiting", "running")
        await asyncio.sleep(0.5)
        requeued = task.log.exists() and "requeued" in task.log.read_text()
    # SLURM lets a requeued job wait for two minutes. The test does not, but in the second in which the job was stopped its
    # node would refuse to start it ("already killed").
    subprocess.run(["scontrol", "update", f"JobId={job.id}", "StartTime=now+3seconds"], check=True)
    code = await job.wait()
    known = subprocess.run(["scontrol", "show", "job", job.id], capture_output=True, text=True, check=False).stdout
    await launcher.aclose()
    text = task.log.read_text()
    assert code == 0, known + text
    assert text.startswith("begun\nThe time of job")
    assert text.endswith("is nearly up: requeued.\nwent on\n")
