"""Processes of this machine: GPUs handed out, ends bound together."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.waiting import until, wait_until

from influence_cli.errors import InfluenceError
from influence_cli.launching import tether
from influence_cli.launching.gpus import Room, visible_gpus
from influence_cli.launching.local import LocalLauncher
from influence_cli.launching.options import LocalOptions
from influence_cli.launching.protocol import LOST, Resources, Task
from influence_cli.testing.launchers import LauncherConformance

SHOWS = "import os; print(os.environ.get('CUDA_VISIBLE_DEVICES'))"


class TestLocal(LauncherConformance):
    """The conformance suite."""

    @pytest.fixture
    def make_launcher(self):
        return lambda: LocalLauncher(LocalOptions(grace=5.0))


def python(folder: Path, code: str, name: str = "task", **more) -> Task:
    return Task(name, (sys.executable, "-c", code), folder / f"{name}.log", **more)


@pytest.fixture
async def launch(tmp_path):
    """Make launchers that are closed in the end."""
    made = []

    def make(**options):
        made.append(LocalLauncher(LocalOptions(**options)))
        return made[-1]

    yield make
    for launcher in made:
        await launcher.aclose()


async def test_each_task_has_gpus_of_its_own_and_waits_for_them(launch, tmp_path):
    launcher = launch(gpus=("0", "1", "GPU-a", "3"))
    code = f"{SHOWS}; import time; time.sleep(0.2)"
    tasks = [python(tmp_path, code, f"task-{n}", resources=Resources(gpus=2)) for n in range(4)]
    jobs = [await launcher.start(task) for task in tasks]
    await asyncio.sleep(0)
    assert (await jobs[3].status()).state == "waiting"
    assert [await job.wait() for job in jobs] == [0] * 4
    given = [task.log.read_text().strip() for task in tasks]
    assert sorted(given[:2]) == ["0,1", "GPU-a,3"]
    assert sorted(given[2:]) == ["0,1", "GPU-a,3"]


async def test_a_task_that_asks_for_no_gpu_keeps_what_this_process_sees(launch, tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5")
    task = python(tmp_path, SHOWS)
    await (await launch().start(task)).wait()
    assert task.log.read_text().strip() == "5"


async def test_a_job_that_waits_is_cancelled_and_frees_its_place(launch, tmp_path):
    launcher = launch(at_once=1)
    first = await launcher.start(python(tmp_path, "import time; time.sleep(0.3)", "first"))
    second = await launcher.start(python(tmp_path, "", "second"))
    third = await launcher.start(python(tmp_path, "", "third"))
    await second.cancel()
    assert await second.wait() == -signal.SIGTERM
    assert [await first.wait(), await third.wait()] == [0, 0]
    assert not (tmp_path / "second.log").exists()


async def test_one_that_hears_nothing_is_killed_after_the_grace_with_all_it_started(launch, tmp_path):
    mark = tmp_path / "pid"
    child = f"import os, pathlib, time; pathlib.Path({str(mark)!r}).write_text(str(os.getpid())); time.sleep(600)"
    code = "import signal, subprocess, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    task = python(tmp_path, code + f"subprocess.run([sys.executable, '-c', {child!r}])")
    job = await launch(grace=0.1).start(task)
    await until(lambda: mark.exists() and mark.read_text())
    await job.cancel()
    assert await job.wait() == -signal.SIGKILL
    await gone(int(mark.read_text()))


async def test_one_that_is_halted_hears_that_it_is_cancelled(launch, tmp_path):
    code = "import os, signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))\n"
    task = python(tmp_path, code + "print('begun', flush=True); os.kill(os.getpid(), signal.SIGSTOP)")
    job = await launch(grace=20).start(task)
    await until(lambda: task.log.exists() and task.log.read_text())
    await job.cancel()
    assert await job.wait() == 3


async def test_one_is_told_to_stop_when_its_time_is_up(launch, tmp_path, monkeypatch):
    monkeypatch.setattr("influence_cli.launching.local._MINUTE", 0.5)
    job = await launch().start(python(tmp_path, "import time; time.sleep(600)", resources=Resources(minutes=1)))
    assert await job.wait() == -signal.SIGTERM


async def test_what_a_kept_job_started_ends_with_it_though_it_ended_itself(launch, tmp_path):
    mark = tmp_path / "pid"
    child = "import os, pathlib, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    child += f"pathlib.Path({str(mark)!r}).write_text(str(os.getpid())); time.sleep(600)"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    job = await launch().start(python(tmp_path, code, outlives=True))
    while not (mark.exists() and mark.read_text()):
        assert (await job.status()).state == "running"
        await asyncio.sleep(0.02)
    await job.cancel()
    assert await job.wait() == -signal.SIGTERM
    await gone(int(mark.read_text()))


def test_a_stop_that_comes_while_the_command_is_being_started_ends_it(tmp_path, monkeypatch):
    started = subprocess.Popen

    def told_meanwhile(command):
        os.kill(os.getpid(), signal.SIGTERM)
        return started(command)

    monkeypatch.setattr(tether.subprocess, "Popen", told_meanwhile)
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        tether.kept(tmp_path / "code", 0.0, [sys.executable, "-c", "import time; time.sleep(600)"])
    finally:
        signal.signal(signal.SIGTERM, before)
    assert (tmp_path / "code").read_text() == str(-signal.SIGTERM)


async def test_a_job_that_nobody_knows_is_lost_and_died_of_no_signal(launch, tmp_path):
    job = await launch().attach(python(tmp_path, ""), "999999999-1")
    assert await job.wait() == LOST
    with pytest.raises(ValueError, match="256"):
        signal.Signals(-LOST)


async def test_a_command_goes_on_though_its_keeper_was_killed_and_is_found_and_ended(launch, tmp_path):
    stops = (
        "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: (print('told', flush=True), sys.exit(3)))"
    )
    task = python(tmp_path, f"{stops}; print('begun', flush=True); time.sleep(600)", outlives=True)
    job = await launch(grace=20).start(task)
    await until(lambda: task.log.exists() and task.log.read_text())
    os.kill(int(job.id.partition("-")[0]), signal.SIGKILL)
    await until(lambda: not alive(int(job.id.partition("-")[0])))
    found = await launch(grace=20).attach(task, job.id)
    assert (await found.status()).state == "running"
    await found.cancel()
    assert "told" in task.log.read_text()
    assert (await found.status()).state == "lost"  # nobody saw how it ended


async def test_one_that_goes_on_by_itself_has_the_gpus_that_are_offered(launch, tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    tasks = [python(tmp_path, SHOWS, f"{n}", resources=Resources(gpus=n), outlives=True) for n in range(3)]
    for task in tasks:
        assert await (await launch(gpus=("5", "GPU-a", "7")).start(task)).wait() == 0
    assert [task.log.read_text().strip() for task in tasks] == ["0,1", "5", "5,GPU-a"]


async def test_one_that_goes_on_by_itself_is_told_to_stop_when_its_time_is_up(launch, tmp_path, monkeypatch):
    monkeypatch.setattr("influence_cli.launching.local._MINUTE", 0.5)
    task = python(tmp_path, "import time; time.sleep(600)", resources=Resources(minutes=1), outlives=True)
    assert await (await launch().start(task)).wait() == -signal.SIGTERM


async def test_one_that_goes_on_by_itself_waits_for_no_place(launch, tmp_path):
    with pytest.raises(InfluenceError, match="waits for nothing. Leave out at_once"):
        await launch(at_once=1).start(python(tmp_path, "", outlives=True))


def test_a_task_ends_with_whoever_started_it_even_if_that_is_killed(tmp_path):
    mark = tmp_path / "pid"
    child = f"import os, pathlib, time; pathlib.Path({str(mark)!r}).write_text(str(os.getpid())); time.sleep(600)"
    code = f"""
import asyncio, sys
from pathlib import Path
from influence_cli.launching.local import LocalLauncher
from influence_cli.launching.options import LocalOptions
from influence_cli.launching.protocol import Task
async def main():
    job = await LocalLauncher(LocalOptions()).start(Task("t", (sys.executable, "-c", {child!r}), Path({str(tmp_path / "log")!r})))
    await job.wait()
asyncio.run(main())
"""
    with subprocess.Popen([sys.executable, "-c", code]) as process:
        try:
            wait_until(lambda: (mark.exists() and mark.read_text()) or process.poll() is not None)
            assert process.poll() is None
        finally:
            process.kill()
    asyncio.run(gone(int(mark.read_text())))


async def gone(number: int) -> None:
    """Wait until a process is no more."""
    try:
        await until(lambda: not alive(number))
    finally:
        if alive(number):
            os.kill(number, signal.SIGKILL)


def alive(number: int) -> bool:
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def test_a_command_that_does_not_exist_is_one_line(launch, tmp_path):
    with pytest.raises(InfluenceError, match="There is no command 'no-such-command'"):
        await launch().start(Task("task", ("no-such-command",), tmp_path / "log"))


def test_gpus_are_those_that_this_process_may_use(monkeypatch, tmp_path):
    for name in ("nvidia0", "nvidia10", "nvidia2", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert visible_gpus(tmp_path) == ("0", "2", "10")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, GPU-b")
    assert visible_gpus(tmp_path) == ("3", "GPU-b")
    for nothing in ("", "-1"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", nothing)
        assert visible_gpus(tmp_path) == ()


async def test_places_are_had_in_the_order_of_asking():
    room = Room(None, "ab")
    first = await room.take(1)
    both, one = asyncio.create_task(room.take(2)), asyncio.create_task(room.take(1))
    await asyncio.sleep(0)
    assert not both.done()
    assert not one.done()  # though there is one: who asked before is not passed over
    room.give_back(first)
    assert sorted(await both) == ["a", "b"]
    room.give_back(("a", "b"))
    assert len(await one) == 1
