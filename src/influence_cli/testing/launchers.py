"""The conformance suite for launchers: what every one promises, as tests.

Subclass it where your tests are, and give it what makes your launcher::

    class TestMyLauncher(LauncherConformance):
        @pytest.fixture
        def make_launcher(self):
            return lambda: MyLauncher(MyOptions())

``patience`` is how many seconds a task may take to begin; ``detaches`` whether tasks can outlive who started them.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from influence_cli.errors import InfluenceError
from influence_cli.launching.protocol import Job, Launcher, Resources, Task

MakeLauncher = Callable[[], Launcher]
_WAITS = "import time; print('begun', flush=True); time.sleep(600)"


class LauncherConformance:
    """Tests of one launcher; override ``make_launcher``."""

    patience = 30.0
    detaches = True

    @pytest.fixture
    def make_launcher(self) -> MakeLauncher:
        """Return what makes the launcher under test."""
        raise NotImplementedError

    @pytest.fixture
    async def launcher(self, make_launcher: MakeLauncher) -> AsyncIterator[Launcher]:
        """Return a launcher, closed in the end."""
        launcher = make_launcher()
        yield launcher
        await launcher.aclose()

    @pytest.fixture
    def task(self, tmp_path: Path) -> Callable[..., Task]:
        """Return what makes a task of some Python."""

        def make(code: str, name: str = "task", **more: Any) -> Task:
            return Task(name, (sys.executable, "-c", code), tmp_path / "logs" / f"{name}.log", **more)

        return make

    async def begun(self, task: Task, job: Job) -> None:
        """Wait until a task has said something."""
        until = time.monotonic() + self.patience
        while not (task.log.is_file() and "begun" in task.log.read_text()):
            assert (await job.status()).state in ("waiting", "running")
            assert time.monotonic() < until, f"{task.name} has not begun after {self.patience:g} s"
            await asyncio.sleep(0.05)

    @pytest.mark.parametrize("code", [0, 1, 3])
    async def test_a_job_ends_with_the_exit_code_of_its_command(
        self, launcher: Launcher, task: Callable[..., Task], code: int
    ) -> None:
        """The code comes as it is, as often as it is asked for."""
        job = await launcher.start(task(f"raise SystemExit({code})"))
        assert await job.wait() == code
        assert await job.wait() == code
        status = await job.status()
        assert (status.state, status.code) == ("ended", code)
        assert job.id

    async def test_output_and_errors_are_appended_to_the_log(
        self, launcher: Launcher, task: Callable[..., Task]
    ) -> None:
        """A second start keeps what the first one said."""
        both = task("import sys; print('out', flush=True); print('err', file=sys.stderr)")
        for _ in range(2):
            assert await (await launcher.start(both)).wait() == 0
        assert both.log.read_text().splitlines() == ["out", "err"] * 2

    async def test_the_command_has_the_environment_of_its_task(
        self, launcher: Launcher, task: Callable[..., Task]
    ) -> None:
        """Whatever characters a value holds."""
        value = "a 'b' \"c\" $HOME ;"
        asked = task("import os; print(os.environ['SAID'])", environment={"SAID": value})
        assert await (await launcher.start(asked)).wait() == 0
        assert asked.log.read_text().strip() == value

    async def test_arguments_arrive_as_they_are(self, launcher: Launcher, tmp_path: Path) -> None:
        """No shell takes a part in it."""
        arguments = ("a b", "$HOME", "'", '"', "*", "ü", "")
        code = "import sys; print(repr(sys.argv[1:]))"
        task = Task("task", (sys.executable, "-c", code, *arguments), tmp_path / "task.log")
        assert await (await launcher.start(task)).wait() == 0
        assert task.log.read_text(encoding="utf-8").strip() == repr(list(arguments))

    async def test_a_cancelled_job_is_told_before_it_is_killed(
        self, launcher: Launcher, task: Callable[..., Task]
    ) -> None:
        """SIGTERM comes first, so that a command can end resumably."""
        said = "signal.signal(signal.SIGTERM, lambda *_: (print('told', flush=True), sys.exit(3)))"
        asked = task(f"import signal, sys, time; {said}; print('begun', flush=True); time.sleep(600)")
        job = await launcher.start(asked)
        await self.begun(asked, job)
        await job.cancel()
        assert (await job.status()).state == "ended"
        assert "told" in asked.log.read_text()
        await job.cancel()

    async def test_a_killed_task_is_told_from_one_that_ended(
        self, launcher: Launcher, task: Callable[..., Task]
    ) -> None:
        """Its code is negative."""
        asked = task("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
        assert await (await launcher.start(asked)).wait() == -signal.SIGKILL

    async def test_several_tasks_are_started_at_once(self, launcher: Launcher, task: Callable[..., Task]) -> None:
        """Each has its own log and code."""
        tasks = [task(f"print({n}); raise SystemExit({n})", f"task-{n}") for n in range(3)]
        jobs = await asyncio.gather(*(launcher.start(each) for each in tasks))
        assert await asyncio.gather(*(job.wait() for job in jobs)) == [0, 1, 2]
        assert [each.log.read_text().strip() for each in tasks] == ["0", "1", "2"]
        assert len({job.id for job in jobs}) == 3

    async def test_waiting_may_be_given_up(self, launcher: Launcher, task: Callable[..., Task]) -> None:
        """Who no longer waits ends nothing."""
        asked = task("import time; print('begun', flush=True); time.sleep(1)")
        job = await launcher.start(asked)
        await self.begun(asked, job)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(job.wait(), 0.05)
        assert await job.wait() == 0

    async def test_closing_ends_what_is_at_work(
        self, make_launcher: MakeLauncher, task: Callable[..., Task], tmp_path: Path
    ) -> None:
        """Nothing is left behind."""
        launcher = make_launcher()
        mark = tmp_path / "mark"
        asked = task(
            f"import pathlib, time; mark = pathlib.Path({str(mark)!r}); mark.touch(); print('begun', flush=True)\n"
            "while True: mark.write_text(str(time.time())); time.sleep(0.05)"
        )
        job = await launcher.start(asked)
        await self.begun(asked, job)
        await launcher.aclose()
        await asyncio.sleep(0.2)
        before = mark.read_text()
        await asyncio.sleep(0.3)
        assert mark.read_text() == before

    async def test_more_than_there_is_is_refused(self, launcher: Launcher, task: Callable[..., Task]) -> None:
        """A task that could never begin is a mistake, in one line."""
        with pytest.raises(InfluenceError) as caught:
            await launcher.start(task("", resources=Resources(gpus=4096)))
        assert "\n" not in str(caught.value)

    async def test_a_detached_job_goes_on_and_is_found_again(
        self, make_launcher: MakeLauncher, task: Callable[..., Task]
    ) -> None:
        """Another process knows it by its id: how it is, how it ended, how to end it."""
        if not self.detaches:
            pytest.skip("tasks of this launcher end with it")
        first, second = make_launcher(), make_launcher()
        short = task("import time; print('begun', flush=True); time.sleep(0.5); raise SystemExit(7)", outlives=True)
        long = task(_WAITS, "long", outlives=True)
        ids = [(await first.start(each)).id for each in (short, long)]
        await first.aclose()
        assert await (await second.attach(short, ids[0])).wait() == 7
        job = await second.attach(long, ids[1])
        await self.begun(long, job)
        assert (await job.status()).state == "running"
        await job.cancel()
        assert (await job.status()).state in ("ended", "lost")
        assert (await (await second.attach(task("", "unknown"), "999999999")).status()).state == "lost"
        await second.aclose()
