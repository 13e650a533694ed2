"""The launcher of SLURM clusters: what is started at one time becomes one array job.

Invariant: a job's exit code is what its command ended with, as the job left it in a file beside its log; where it could not
(killed, out of memory, a node that died), what SLURM remembers.
"""

from __future__ import annotations

import asyncio
import signal
import time
from contextlib import suppress
from pathlib import Path

from influence_cli.api import LOST, InfluenceError, Job, JobStatus, Resources, Task
from influence_slurm import cluster
from influence_slurm.options import SlurmOptions
from influence_slurm.script import code_file, render_script

_GATHER = 0.05
"""Seconds in which tasks that are started belong to one array."""
_SETTLES = 5.0
"""Seconds that a file may take from the node to here."""
_LOOKS = 20


class SlurmLauncher:
    """Submits batch jobs; see :class:`influence_cli.api.Launcher`."""

    survives = True

    def __init__(self, options: SlurmOptions) -> None:
        self._options = options
        self._jobs: list[SlurmJob] = []
        self._gathered: dict[Resources, asyncio.Task[dict[int, str]]] = {}
        self._tasks: dict[Resources, list[Task]] = {}
        self._looked = 0.0
        self._queued: dict[str, str] | None = None
        self._looking = asyncio.Lock()

    async def start(self, task: Task) -> Job:
        """Return the job of ``task``; those that are started together and ask for the same are one array."""
        absent = await asyncio.to_thread(_prepare, task)
        if absent:
            raise InfluenceError(absent)
        waiting = self._tasks.setdefault(task.resources, [])
        waiting.append(task)
        if len(waiting) == 1:
            self._gathered[task.resources] = asyncio.create_task(self._submit(task.resources))
        numbers = await asyncio.shield(self._gathered[task.resources])
        job = SlurmJob(self, task, numbers[id(task)], self._options)
        if not task.outlives:
            self._jobs.append(job)
        return job

    async def attach(self, task: Task, job_id: str) -> Job:
        """Return the job ``job_id`` of SLURM."""
        return SlurmJob(self, task, job_id, self._options)

    async def aclose(self) -> None:
        """Cancel what has not ended."""
        jobs = [job for job in self._jobs if not job.over]
        if jobs:
            await cluster.ask("scancel", *(job.id for job in jobs))
            await asyncio.gather(*(job.wait() for job in jobs))

    async def state(self, number: str, *, anew: bool = False) -> str | None:
        """Return the state of a job in the queue, at most a poll old; None if it has left it."""
        async with self._looking:
            if anew or self._queued is None or time.monotonic() - self._looked >= self._options.poll:
                found = await cluster.queued()
                if found is not None:
                    self._queued, self._looked = found, time.monotonic()
        return "UNKNOWN" if self._queued is None else self._queued.get(number)

    async def _submit(self, resources: Resources) -> dict[int, str]:
        await asyncio.sleep(_GATHER)
        tasks = self._tasks.pop(resources)
        folder = tasks[0].log.parent
        script = folder / f"slurm-{tasks[0].name}-{time.time_ns()}.sh"
        script.write_text(render_script(tasks, self._options, Path.cwd()), encoding="utf-8")
        number = await cluster.submit(script)
        self._queued = None
        several = len(tasks) > 1
        return {id(task): f"{number}_{place}" if several else number for place, task in enumerate(tasks)}


class SlurmJob:
    """One job, or one of an array."""

    def __init__(self, launcher: SlurmLauncher, task: Task, number: str, options: SlurmOptions) -> None:
        self.id = number
        self._launcher = launcher
        self._task = task
        self._options = options
        self._ended: JobStatus | None = None

    @property
    def over(self) -> bool:
        """Whether it is known to have ended."""
        return self._ended is not None

    async def status(self) -> JobStatus:
        """Return how it is now."""
        return await self._status()

    async def wait(self) -> int:
        """Return its exit code; LOST where nobody knows."""
        while True:
            status = await self._status()
            if status.state in ("ended", "lost"):
                return LOST if status.code is None else status.code
            await asyncio.sleep(self._options.poll)

    async def cancel(self) -> None:
        """Tell its script to stop the command, and have SLURM kill it after the grace."""
        status = await self._status(anew=True)
        if status.state == "running":
            await cluster.ask("scancel", "--batch", "--signal=TERM", self.id)
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self.wait(), self._options.grace)
            status = await self._status(anew=True)
        if status.state in ("waiting", "running"):
            await cluster.ask("scancel", self.id)
            await self.wait()

    async def _status(self, *, anew: bool = False) -> JobStatus:
        if self._ended is None:
            state = await self._launcher.state(self.id, anew=anew)
            if state is not None:
                return JobStatus("waiting" if cluster.is_waiting(state) else "running")
            self._ended = await self._ending()
        return self._ended

    async def _ending(self) -> JobStatus:
        """Return how it ended: as it says itself, else as SLURM does."""
        code = _left_code(self._task)
        if code is None:
            known = await cluster.final_code(self.id)
            if known in (0, None):  # it came to its end, so that there is a file, here or still on its way
                code = await _arriving_code(self._task)
            code = known if code is None else code
        if code is None:
            return JobStatus("lost")
        return JobStatus("ended", 128 - code if code > 128 and signal_of(code) else code)


def signal_of(code: int) -> bool:
    """Return whether a shell's exit code stands for a signal."""
    return code - 128 in {int(number) for number in signal.Signals}


def _prepare(task: Task) -> str | None:
    """Make room for a task's log; return what is wrong, if anything is."""
    task.log.parent.mkdir(parents=True, exist_ok=True)
    code_file(task).unlink(missing_ok=True)
    return None if task.command else "There is nothing to run."


async def _arriving_code(task: Task) -> int | None:
    """Return the exit code that a job left, which may take a while to be seen from here."""
    for _ in range(_LOOKS):
        code = _left_code(task)
        if code is not None:
            return code
        await asyncio.sleep(_SETTLES / _LOOKS)
    return None


def _left_code(task: Task) -> int | None:
    try:
        return int(code_file(task).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
