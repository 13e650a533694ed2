"""The launcher of this machine: a process for each task, its output in a file, its end bound to its parent's.

Invariant: no process outlives the launcher but those that were asked to; where one is ended by force, so is all that it
started.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from influence_cli.errors import InfluenceError
from influence_cli.launching import tether
from influence_cli.launching.gpus import VISIBLE, Room, visible_gpus
from influence_cli.launching.options import LocalOptions
from influence_cli.launching.protocol import LOST, Job, JobStatus, Task

_MINUTE = 60.0
_POLL = 0.2
_GROUP, _BORN = 2, 19
"""Places in what the kernel tells of a process, its state being the first."""


class LocalLauncher:
    """Starts processes; see :class:`influence_cli.launching.protocol.Launcher`."""

    survives = False

    def __init__(self, options: LocalOptions) -> None:
        self._options = options
        self._room = Room(options.at_once, visible_gpus() if options.gpus is None else options.gpus)
        self._jobs: list[LocalJob] = []

    async def start(self, task: Task) -> Job:
        """Return the job of ``task``; it waits while all places or GPUs are taken."""
        if shutil.which(task.command[0]) is None:
            raise InfluenceError(f"There is no command {task.command[0]!r}.")
        self._room.check(task.resources.gpus)
        if task.outlives:
            return await _start_kept(task, self._options)
        job = LocalJob(task, self._room, self._options.grace)
        self._jobs = [other for other in self._jobs if not other.over]
        self._jobs.append(job)
        return job

    async def attach(self, task: Task, job_id: str) -> Job:
        """Return a job of this machine that another process started."""
        return KeptJob(task, job_id, self._options.grace)

    async def aclose(self) -> None:
        """Kill what is still at work."""
        for job in self._jobs:
            job.kill()
        await asyncio.gather(*(job.wait() for job in self._jobs))


class LocalJob:
    """A process that ends with this one."""

    def __init__(self, task: Task, room: Room, grace: float) -> None:
        self._task = task
        self._room = room
        self._grace = grace
        self._process: asyncio.subprocess.Process | None = None
        self._work = asyncio.create_task(self._run())

    @property
    def id(self) -> str:
        """The process's number; the task's name while it waits."""
        return str(self._process.pid) if self._process else self._task.name

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self._work.done()

    async def status(self) -> JobStatus:
        """Return how it is now."""
        if self._work.done():
            return JobStatus("ended", await self.wait())
        return JobStatus("running" if self._process else "waiting")

    async def wait(self) -> int:
        """Return the exit code; that of a job which was cancelled while it waited is that of SIGTERM."""
        try:
            return await asyncio.shield(self._work)
        except asyncio.CancelledError:
            if self._work.cancelled():
                return -signal.SIGTERM
            raise

    async def cancel(self) -> None:
        """Send SIGTERM, and SIGKILL to whatever is left after the grace."""
        if self._process is None:
            self._work.cancel()
        elif not self._work.done():
            self._send(signal.SIGTERM)
            self._send(signal.SIGCONT)  # one that was halted hears nothing until it goes on
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(asyncio.shield(self._work), self._grace)
            self.kill()
        await self.wait()

    def kill(self) -> None:
        """End it, and all that it started, at once."""
        if self._process is None:
            self._work.cancel()
        elif not self._work.done():
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def _send(self, number: signal.Signals) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def _run(self) -> int:
        gpus = await self._room.take(self._task.resources.gpus)
        try:
            self._process = await _spawn(self._task, str(os.getpid()), gpus)
            minutes = self._task.resources.minutes
            if minutes is not None:
                asyncio.get_running_loop().call_later(_MINUTE * minutes, self._send, signal.SIGTERM)
            return await self._process.wait()
        finally:
            self._room.give_back(gpus)


class KeptJob:
    """A process of this machine that goes on by itself; known by its number and its time of birth.

    It keeps the command, which it started in its own process group: where it alone was killed, the command goes on, and
    is found by the group.
    """

    def __init__(self, task: Task, job_id: str, grace: float) -> None:
        self._task = task
        self.id = job_id
        self._grace = grace

    async def status(self) -> JobStatus:
        """Return how it is now; the exit code stands in a file beside the log."""
        return self._status()

    async def wait(self) -> int:
        """Return the exit code when it has ended."""
        while True:
            status = self._status()
            if status.state != "running":
                return LOST if status.code is None else status.code
            await asyncio.sleep(_POLL)

    async def cancel(self) -> None:
        """Send SIGTERM, and SIGKILL to whatever is left after the grace."""
        number, born = self._name()
        if self._status().state != "running":
            return
        with suppress(ProcessLookupError):
            if _born(number) == born:
                os.kill(number, signal.SIGTERM)
            else:
                os.killpg(number, signal.SIGTERM)
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self.wait(), self._grace)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(number, signal.SIGKILL)  # though it has ended: what it started may not have
        await self.wait()

    def _status(self) -> JobStatus:
        number, born = self._name()
        if born and _born(number) == born:
            return JobStatus("running")
        file = _code_file(self._task)
        text = file.read_text(encoding="utf-8").strip() if file.is_file() else ""
        if text.lstrip("-").isdigit():
            return JobStatus("ended", int(text))
        return JobStatus("running" if born and _group_lives(number, born) else "lost")

    def _name(self) -> tuple[int, str]:
        """Return the process's number and its time of birth, which is empty in what is no name of a job."""
        number, _, born = self.id.partition("-")
        return (int(number), born) if number.isdigit() and born.isdigit() else (0, "")


async def _start_kept(task: Task, options: LocalOptions) -> Job:
    """Start a task that goes on by itself: at once, and on the first GPUs, since nobody is left to hand them out."""
    if options.at_once is not None:
        raise InfluenceError("What goes on by itself waits for nothing.", hint="Leave out at_once, or --detach.")
    file = _code_file(task)
    file.unlink(missing_ok=True)
    gpus = (visible_gpus() if options.gpus is None else options.gpus)[: task.resources.gpus]
    process = await _spawn(task, str(file.resolve()), gpus, _MINUTE * (task.resources.minutes or 0))
    job = KeptJob(task, f"{process.pid}-{_born(process.pid)}", options.grace)
    _reaped.add(asyncio.create_task(process.wait()))
    return job


_reaped: set[asyncio.Task[int]] = set()
"""Waits for kept processes that end before this one does, so that none is left as a zombie."""


async def _spawn(task: Task, tied_to: str, gpus: tuple[str, ...], seconds: float = 0.0) -> asyncio.subprocess.Process:
    environment = {**os.environ, **task.environment}
    if gpus:
        environment[VISIBLE] = ",".join(gpus)
    task.log.parent.mkdir(parents=True, exist_ok=True)
    with task.log.open("ab") as log:
        return await asyncio.create_subprocess_exec(
            *tethered(task.command, tied_to, seconds),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
            start_new_session=True,
        )


def tethered(command: Sequence[str], tied_to: str | None = None, seconds: float = 0.0) -> tuple[str, ...]:
    """Return a command that runs ``command`` such that it ends with this process, if that started it.

    ``tied_to`` may be a file instead, for the exit code of one that goes on, and is told to stop after ``seconds`` if any.
    """
    where: tuple[str, ...] = (str(os.getpid()) if tied_to is None else tied_to,)
    if not where[0].isdigit():
        where = (*where, str(seconds))
    return (sys.executable, "-I", "-S", str(Path(tether.__file__)), *where, *command)


def _code_file(task: Task) -> Path:
    return task.log.with_suffix(".code")


def _born(number: int) -> str:
    """Return when process ``number`` was born, in ticks since the machine was; empty if it is none or a zombie."""
    found = _stat(number)
    return found[_BORN] if found else ""


def _group_lives(number: int, born: str) -> bool:
    """Return whether a process of the group ``number`` lives that is no older than ``born``, though its first is no more.

    While one does, the kernel gives the number to no other process.
    """
    if _stat(number):
        return False
    members = (_stat(int(entry.name)) for entry in Path("/proc").iterdir() if entry.name.isdigit())
    return any(found[_GROUP] == str(number) and int(found[_BORN]) >= int(born) for found in members if found)


def _stat(number: int) -> list[str]:
    """Return what the kernel tells of a process from its state on; nothing if it is none or a zombie."""
    try:
        text = Path(f"/proc/{number}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    found = text.rpartition(")")[2].split()
    return [] if found[0] == "Z" else found
