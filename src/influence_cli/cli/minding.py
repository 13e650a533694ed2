"""What sittings in shards have in common: how the work is split, what signals do, and what a shard's end means."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from influence_cli.cli import output
from influence_cli.cli.launching import LOCAL, check_launcher, launcher_options, launcher_with, parse_resources
from influence_cli.errors import InfluenceError
from influence_cli.launching.logs import last_lines, told_error
from influence_cli.launching.protocol import LOST, Job, Launcher, Resources, Task
from influence_cli.launching.records import JobRecord, add_record, drop_records, read_records, record_of
from influence_cli.launching.supervision import Care, Ending, Supervisor, Verdict
from influence_cli.plugins.registry import PluginRegistry
from influence_cli.store.merge import merge_shards, refuse_live_shards, shard_files
from influence_cli.store.run_directory import RunDirectory

SHARD_PREFIX = "shard-"
"""Names of the tasks of shards begin so."""
BUDGET = "its part of the budget is used up"


class Stoppable(Protocol):
    """A tally that remembers why its work was stopped."""

    stop: Any


@dataclass(frozen=True)
class Sharding:
    """How a run is split, and who starts the parts."""

    count: int
    launcher: Launcher
    name: str
    options: dict[str, Any]
    resources: Resources
    care: Care


def sharding_of(
    registry: PluginRegistry,
    shards: int | None,
    launcher: str | None,
    options: Sequence[str] | None,
    resources: str | None,
    *,
    patience: float,
    restarts: int,
    dry: bool = False,
) -> Sharding | None:
    """Return how a command's work is split; None where this process does it all, or nothing is done (``dry``).

    InfluenceError for what is wrong.
    """
    if shards is None and launcher is None:
        if options or resources:
            raise InfluenceError("Nothing is launched here.", hint="Add --shards N or --launcher NAME.")
        return None
    asked = parse_resources(resources)
    name, given = launcher or LOCAL, launcher_options(options)
    check_launcher(registry, name, given)
    if dry:
        return None
    made = launcher_with(registry, name, given)
    return Sharding(shards or 1, made, name, given, asked, Care(patience=patience, retries=restarts))


def remember_job(folder: Path, sharding: Sharding, task: Task, job: Job) -> None:
    """Remember a shard's job that goes on if this process is killed, so that it can be found then."""
    if sharding.launcher.survives:
        started = datetime.now(UTC).isoformat(timespec="seconds")
        drop_records(folder, [task.name])
        add_record(folder, record_of(task, job.id, sharding.name, sharding.options, started))


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
) -> dict[str, Ending]:
    """Return how each task of the run in ``folder`` ended; ``show`` is cancelled then, and signals end all of them."""
    started = partial(remember_job, folder, sharding)
    supervisor = Supervisor(sharding.launcher, sharding.care, sign=sign, judge=judge, told=told, started=started)
    on_signals(tally, supervisor.stop, sharding.launcher)
    display = asyncio.create_task(show)
    try:
        return await supervisor.mind(tasks)
    finally:
        display.cancel()
        await asyncio.gather(display, return_exceptions=True)


async def end_orphans(folder: Path, sharding: Sharding) -> None:
    """End the jobs of shards whose minder was killed; InfluenceError where they are another launcher's."""
    refuse_orphans(folder, but_of=sharding.name)
    for record in orphans(folder):
        job = await sharding.launcher.attach(record.task(), record.id)
        if (await job.status()).state in ("waiting", "running"):
            output.say(f"Ending job {record.id}, which works on {record.name}: nobody minds it.")
            await job.cancel()
    drop_records(folder, [record.name for record in orphans(folder)])


def orphans(folder: Path) -> list[JobRecord]:
    """Return the jobs of shards that were started for the run in ``folder``, and whose end was not seen."""
    return [record for record in read_records(folder) if record.name.startswith(SHARD_PREFIX)]


def refuse_orphans(folder: Path, but_of: str | None = None) -> None:
    """Raise InfluenceError if a shard's job may still work on the run, but for those of one launcher."""
    for record in orphans(folder):
        if record.launcher != but_of:
            raise InfluenceError(
                f"The job {record.id} of {record.launcher} may be at work on {folder}.",
                hint=f"End it: influence jobs cancel {record.id} --folder {folder}.",
            )


def gather_shards(directory: RunDirectory) -> None:
    """Take what shards have stored whose own process did not come to merge it; InfluenceError if one is at work."""
    refuse_orphans(directory.path)
    if shard_files(directory):
        refuse_live_shards(directory)
        merge_shards(directory)


@asynccontextmanager
async def gathering(sharding: Sharding, folder: Path, gather: Callable[[], None]) -> AsyncIterator[list[str]]:
    """Let the block mind shards, whose names it puts on the list as it starts them; then gather, end and forget them.

    Whatever fails, the rest is done: the first error is raised, the others are told. Jobs that could not be ended are
    remembered, for the next sitting to end.
    """
    names: list[str] = []
    errors: list[BaseException] = []
    try:
        yield names
    except BaseException as error:  # noqa: BLE001 - it is raised below
        errors.append(error)
    try:
        if names:
            gather()
    except Exception as error:  # noqa: BLE001 - it is raised or told below
        errors.append(error)
    try:
        await sharding.launcher.aclose()
        drop_records(folder, names)
    except Exception as error:  # noqa: BLE001 - it is raised or told below
        errors.append(error)
    for later in errors[1:]:
        output.warn(f"Then: {later}")
    if errors:
        raise errors[0]


def death(code: int) -> str:
    """Return what an exit code that is none of this program's means."""
    if code == LOST:
        return "was lost: nobody knows how it ended"
    return f"died of signal {-code}" if code < 0 else f"died with exit code {code}"


def on_signals(tally: Stoppable, stop: Callable[[], None], launcher: Launcher) -> None:
    """First SIGINT or SIGTERM: tell the tasks to stop. Second: end them now."""
    loop = asyncio.get_running_loop()
    ending: list[asyncio.Task[None]] = []

    def asked_to_stop() -> None:
        if tally.stop is None:
            tally.stop = "signal"
            stop()
            output.say("Stopping: the shards finish what is in flight; once more to stop now.")
        elif not ending:
            ending.append(asyncio.create_task(launcher.aclose()))

    for number in (signal.SIGINT, signal.SIGTERM):
        with suppress(NotImplementedError, RuntimeError, ValueError):
            loop.add_signal_handler(number, asked_to_stop)


def last_error(log: Path) -> str:
    """Return the last error that a command wrote to its log; where there is none, its last line."""
    return told_error(log) or (last_lines(log) or [f"see {log}"])[-1]
