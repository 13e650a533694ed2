"""Minding the shards of one sitting: what dies is started again, what hangs is ended first, and signals end all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from influence_cli.launching.protocol import Launcher, Task
from influence_cli.launching.signals import hearing_stops
from influence_cli.launching.supervision import Care, Ending, Supervisor, Verdict
from influence_cli.listening import Listener
from influence_cli.sharding.orphans import remember_job
from influence_cli.sharding.splitting import Sharding
from influence_cli.simulation.tally import Stoppable


async def mind_shards(
    sharding: Sharding,
    folder: Path,
    tally: Stoppable,
    tasks: Sequence[Task],
    *,
    sign: Callable[[Task], object],
    judge: Callable[[Task, int], Verdict],
    told: Callable[[Task, str], None],
    show: Coroutine[Any, Any, None],
    heard: Listener,
) -> dict[str, Ending]:
    """Return how each task of the run in ``folder`` ended; ``show`` is cancelled then, and signals end all of them."""
    started = partial(remember_job, folder, sharding)
    care = Care(patience=sharding.how.hang_after, retries=sharding.how.restarts)
    supervisor = Supervisor(sharding.launcher, care, sign=sign, judge=judge, told=told, started=started)
    with _stopping(tally, supervisor.stop, sharding.launcher, heard):
        display = asyncio.create_task(show)
        try:
            return await supervisor.mind(tasks)
        finally:
            display.cancel()
            await asyncio.gather(display, return_exceptions=True)


@contextmanager
def _stopping(tally: Stoppable, stop: Callable[[], None], launcher: Launcher, heard: Listener) -> Iterator[None]:
    """First SIGINT or SIGTERM during the block: tell the tasks to stop. Second: end them now."""
    ending: list[asyncio.Task[None]] = []

    def asked_to_stop() -> None:
        if tally.stop is None:
            tally.stop = "signal"
            stop()
            heard.say("Stopping: the shards finish what is in flight; once more to stop now.")
        elif not ending:
            ending.append(asyncio.create_task(launcher.aclose()))

    with hearing_stops(asked_to_stop):
        yield
