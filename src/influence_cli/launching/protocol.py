"""What a launcher is: a task in, a job out, which can be waited for, looked at and cancelled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

JobState = Literal["waiting", "running", "ended", "lost"]
"""``waiting`` for room; ``ended`` one way or the other; ``lost``: nothing is known of it any more."""

LOST = -256
"""What waiting for a job returns when nobody knows how it ended: no exit code, and no signal's number."""


@dataclass(frozen=True)
class Resources:
    """What a task needs of the machine that it runs on; None: whatever there is."""

    gpus: int = 0
    cpus: int = 1
    memory_gb: float | None = None
    minutes: int | None = None
    """After which it is told to stop: SIGTERM, upon which a command of this program ends resumably."""


@dataclass(frozen=True)
class Task:
    """One command to run.

    ``command`` is an argument list; ``log`` is where its output is appended, as one stream; ``environment`` is added to
    the process's own; one that ``outlives`` goes on when whoever started it ends.
    """

    name: str
    command: tuple[str, ...]
    log: Path
    resources: Resources = Resources()
    environment: Mapping[str, str] = field(default_factory=dict)
    outlives: bool = False


@dataclass(frozen=True)
class JobStatus:
    """How a job is: ``code`` is its exit code once it has ended, negative for a signal; None where it is unknown."""

    state: JobState
    code: int | None = None


class Job(Protocol):
    """A task that was started."""

    @property
    def id(self) -> str:
        """What its launcher, and a person, knows it by."""
        ...

    async def status(self) -> JobStatus:
        """Return how it is now."""
        ...

    async def wait(self) -> int:
        """Return its exit code when it has ended: negative for a signal, 3 for a stop that can be resumed, ``LOST``.

        May be called several times, and abandoned: that ends nothing.
        """
        ...

    async def cancel(self) -> None:
        """End it: politely, so that it can be resumed, then by force. Returns when it has ended."""
        ...


class Launcher(Protocol):
    """Starts tasks; made by ``load()(options)``, used from one event loop."""

    @property
    def survives(self) -> bool:
        """Whether its jobs go on when this process is killed, even those that do not outlive its end."""
        ...

    async def start(self, task: Task) -> Job:
        """Return the job of ``task``, which begins as soon as there is room.

        InfluenceError where it never can: no such command, more asked for than there is, a cluster that refuses.
        """
        ...

    async def attach(self, task: Task, job_id: str) -> Job:
        """Return the job that another process started for ``task``, which ``outlives`` it; its state may be ``lost``."""
        ...

    async def aclose(self) -> None:
        """End at once what was started and does not outlive it; release what is held."""
        ...
