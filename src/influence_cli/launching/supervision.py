"""Keeping tasks at work until they are done: what dies is started again, what hangs is ended and started again.

Concept: a task is judged by its exit code and by a *sign*, any value that changes while it gets on. What both mean is
for the caller to say; this module knows times and tries.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from influence_cli.launching.protocol import Job, Launcher, Task

_MOST_PAUSE = 60.0
_START = 600.0
"""Seconds that a task may take to its first sign, where its patience is shorter: models are loaded meanwhile."""
_HUNG = "nothing new came of it for {seconds:g} s"


@dataclass(frozen=True)
class Care:
    """How long a task may show no sign, how often it is started again, and how long to wait before."""

    patience: float = 900.0
    retries: int = 3
    pause: float = 1.0
    """Before the first new start; each further one waits twice as long, up to a minute."""
    poll: float = 0.5


@dataclass(frozen=True)
class Verdict:
    """What a task's end means: ``done``, to be tried ``again``, or ``over`` without being done; and why."""

    what: Literal["done", "again", "over"]
    why: str = ""


@dataclass(frozen=True)
class Ending:
    """How a task ended for good: its last verdict, its last exit code, and how often it was started."""

    verdict: Verdict
    code: int | None
    starts: int


class Supervisor:
    """Minds tasks: :meth:`mind` once; :meth:`stop` at any time, from the same event loop.

    ``sign`` tells whether a task gets on; ``judge`` says what its exit code means, and may raise to end everything;
    ``told`` hears what a person should know, ``started`` of every job.
    """

    def __init__(
        self,
        launcher: Launcher,
        care: Care,
        *,
        sign: Callable[[Task], object],
        judge: Callable[[Task, int], Verdict],
        told: Callable[[Task, str], None],
        started: Callable[[Task, Job], None] = lambda _task, _job: None,
    ) -> None:
        self._launcher = launcher
        self._care = care
        self._sign = sign
        self._judge = judge
        self._told = told
        self._started = started
        self._stop = asyncio.Event()
        self._error: Exception | None = None

    def stop(self) -> None:
        """End every task politely, and begin none."""
        self._stop.set()

    async def mind(self, tasks: Sequence[Task]) -> dict[str, Ending]:
        """Return how each task ended, by its name; raises what ``judge`` or the launcher raised, when all have ended."""
        endings = await asyncio.gather(*(self._mind(task) for task in tasks))
        if self._error is not None:
            raise self._error
        return {task.name: ending for task, ending in zip(tasks, endings, strict=True)}

    async def _mind(self, task: Task) -> Ending:
        starts, code = 0, None
        verdict = Verdict("over", "stopped")
        while not self._stop.is_set():
            starts += 1
            try:
                job = await self._launcher.start(task)
                self._started(task, job)
                code, hung = await self._watch(task, job)
                if self._stop.is_set():
                    break
                verdict = self._judge(task, code)
                if hung and verdict.what == "again":
                    verdict = Verdict("again", _HUNG.format(seconds=self._care.patience))
            except Exception as error:  # noqa: BLE001 - whatever it is, the others are ended before it is raised
                self._error = self._error or error
                self.stop()
                break
            if verdict.what != "again":
                return Ending(verdict, code, starts)
            if starts > self._care.retries:
                self._told(task, f"{verdict.why}; given up after {starts} starts")
                return Ending(Verdict("over", verdict.why), code, starts)
            self._told(task, f"{verdict.why}; started again ({starts} of {self._care.retries})")
            await self._rest(starts)
        return Ending(Verdict("over", "stopped"), code, starts)

    async def _watch(self, task: Task, job: Job) -> tuple[int, bool]:
        """Return the job's exit code, and whether it was ended because it showed no sign."""
        ended = asyncio.ensure_future(job.wait())
        stopped = asyncio.ensure_future(self._stop.wait())
        first = last = self._sign(task)
        since, hung = time.monotonic(), False
        try:
            while not ended.done():
                await asyncio.wait((ended, stopped), timeout=self._care.poll, return_when=asyncio.FIRST_COMPLETED)
                sign = self._sign(task)
                if sign != last or (await job.status()).state == "waiting":
                    last, since = sign, time.monotonic()
                patience = max(self._care.patience, _START) if last == first else self._care.patience
                hung = not ended.done() and time.monotonic() - since > patience
                if (hung or stopped.done()) and not ended.done():
                    await job.cancel()
                    await asyncio.wait((ended,))
            return ended.result(), hung
        finally:
            for waiting in (ended, stopped):
                waiting.cancel()
            await asyncio.gather(ended, stopped, return_exceptions=True)

    async def _rest(self, starts: int) -> None:
        pause = min(_MOST_PAUSE, self._care.pause * 2.0 ** (starts - 1))
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._stop.wait(), pause)
