"""Tasks on a real Ray: the conformance suite, placement by GPUs, a worker killed and its shard taken up."""

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import orjson
import pytest
from tests.commands import influence, said

from influence_cli.api import InfluenceError, Resources, Task
from influence_cli.testing.launchers import LauncherConformance

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(240),
    pytest.mark.xdist_group("ray"),
    pytest.mark.filterwarnings("default"),  # Ray's own
]


@pytest.fixture
def make_launcher(cluster):
    from influence_ray.launcher import RayLauncher
    from influence_ray.options import RayOptions

    return lambda: RayLauncher(RayOptions(address=cluster))


class TestRay(LauncherConformance):
    """The conformance suite."""

    patience = 120.0

    @pytest.fixture
    def make_launcher(self, make_launcher):
        return make_launcher


async def test_tasks_are_placed_by_the_gpus_that_they_ask_for(make_launcher, tmp_path):
    launcher = make_launcher()
    code = "import os, time; print(os.environ['CUDA_VISIBLE_DEVICES'], flush=True); time.sleep(2)"
    jobs, tasks = [], []
    for number in range(3):
        tasks.append(Task(f"t{number}", (sys.executable, "-c", code), tmp_path / f"{number}.log", Resources(gpus=1)))
        jobs.append(await launcher.start(tasks[-1]))
    while sum([(await job.status()).state == "running" for job in jobs]) < 2:
        await asyncio.sleep(0.05)
    assert sorted([(await job.status()).state for job in jobs]) == ["running", "running", "waiting"]
    assert [await job.wait() for job in jobs] == [0, 0, 0]
    given = [task.log.read_text().strip() for task in tasks]
    assert set(given) == {"0", "1"}
    with pytest.raises(
        InfluenceError, match="No node of the Ray cluster has 3 GPUs and 1 CPUs; the largest has 2 and 4"
    ):
        await launcher.start(Task("t", ("true",), tmp_path / "t.log", Resources(gpus=3)))
    await launcher.aclose()


def test_a_worker_killed_in_the_middle_is_replaced_and_its_shard_resumed(cluster, tmp_path, tiny_folder):
    settings = ["--env", tiny_folder, "-m", "scripted:demo", "--n", "18", "--seed", "5"]
    where = [
        "--shards",
        "3",
        "--launcher",
        "ray",
        "--launcher-option",
        f"address={cluster}",
        "--out",
        tmp_path / "split",
    ]
    command = [sys.executable, "-m", "influence_cli", "simulate", *settings, "-o", "latency=0.5", *where, "--json"]
    with subprocess.Popen(
        list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        beat = tmp_path / "split" / "logs" / "shard-2of3.json"
        while not beat.exists():
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
        shard = orjson.loads(beat.read_bytes())["process"]
        worker = int(Path(f"/proc/{shard}/stat").read_text().rpartition(")")[2].split()[1])
        assert "Minder" in Path(f"/proc/{worker}/cmdline").read_text()
        os.kill(worker, signal.SIGKILL)
        stdout, stderr = process.communicate(timeout=200)
    assert process.returncode == 0, stderr
    assert "Shard 2/3: died of signal 9; started again (1 of 3)." in stderr
    assert stdout.startswith("{"), stdout
    assert orjson.loads(stdout)["conversations"]["complete"] == 18
    influence("simulate", *settings, "--out", tmp_path / "whole", "--quiet")
    assert said(tmp_path / "split") == said(tmp_path / "whole")


async def test_no_cluster_where_one_is_said_to_be_is_one_line(cluster):
    from influence_ray.launcher import RayLauncher
    from influence_ray.options import RayOptions

    with pytest.raises(InfluenceError, match="No Ray cluster answers at 127.0.0.1:1: ") as caught:
        RayLauncher(RayOptions(address="127.0.0.1:1"))
    assert "\n" not in str(caught.value)


def test_a_cluster_that_was_begun_here_and_killed_is_not_looked_for(tmp_path):
    """Ray remembers in a file which cluster runs here; one that was killed leaves it behind."""
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp") as folder:  # its sockets need a short path
        (Path(folder) / "ray").mkdir()
        (Path(folder) / "ray" / "ray_current_cluster").write_text("127.0.0.1:9")
        env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        options = ["--env", "therapy", "-m", "scripted:demo", "--n", "2", "--turns", "1", "--shards", "2"]
        told = [*options, "--launcher", "ray", "--out", tmp_path / "run"]
        influence("simulate", *told, env={**env, "RAY_TMPDIR": folder})
