"""Running a command as one task of a launcher: waited for with its log told, or left to itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from influence_cli.launching.commands import program
from influence_cli.launching.protocol import Job, Launcher, Resources, Task
from influence_cli.launching.records import add_record, record_of
from influence_cli.launching.signals import hearing_stops
from influence_cli.plugins.registry import PluginRegistry
from influence_cli.resolution import LOCAL, check_launcher, launcher_with

_POLL = 0.3


@dataclass(frozen=True)
class Place:
    """Where a command is to run, and what it needs there."""

    launcher: str = LOCAL
    options: Mapping[str, Any] = field(default_factory=dict)
    resources: Resources = field(default_factory=Resources)
    detach: bool = False


@dataclass(frozen=True)
class Launched:
    """What became of it; ``code`` is None for a job that was left to itself."""

    folder: Path
    job: str
    launcher: str
    log: Path
    code: int | None = None

    def document(self) -> dict[str, Any]:
        """Return the documented object ``influence.launched/1``."""
        facts = {"run": str(self.folder), "job": self.job, "launcher": self.launcher, "log": str(self.log)}
        return {"schema": "influence.launched/1", **facts, "code": self.code}


def refuse_place(registry: PluginRegistry, place: Place) -> None:
    """Raise InfluenceError for what is wrong with ``place``, before anything is made."""
    check_launcher(registry, place.launcher, place.options)


def launch(
    registry: PluginRegistry,
    folder: Path,
    name: str,
    arguments: Sequence[str],
    place: Place,
    told: Callable[[str], None],
) -> Launched:
    """Run the command ``name`` on the run in ``folder`` where ``place`` says; return what became of it.

    ``told`` hears what it says, unless it is left to itself.
    """
    log = folder.resolve() / "logs" / f"{name}.log"
    task = Task(name, program(name, *arguments), log, place.resources, outlives=place.detach)
    launcher = launcher_with(registry, place.launcher, place.options)
    if not place.detach:
        return asyncio.run(_attended(launcher, task, folder, place.launcher, told))

    async def leave() -> Job:
        try:
            return await launcher.start(task)
        finally:
            await launcher.aclose()

    job = asyncio.run(leave())
    started = datetime.now(UTC).isoformat(timespec="seconds")
    add_record(folder, record_of(task, job.id, place.launcher, dict(place.options), started))
    return Launched(folder, job.id, place.launcher, log)


async def _attended(launcher: Launcher, task: Task, folder: Path, named: str, told: Callable[[str], None]) -> Launched:
    """Wait for a task, and say what it says; a signal ends it resumably, a second one at once."""
    begins = task.log.stat().st_size if task.log.is_file() else 0
    try:
        job = await launcher.start(task)
        cancelling: list[asyncio.Task[None]] = []

        def asked_to_stop() -> None:
            end = job.cancel if not cancelling else launcher.aclose
            cancelling.append(asyncio.create_task(end()))

        with hearing_stops(asked_to_stop):
            following = asyncio.create_task(follow(task.log, told, begins))
            try:
                code = await job.wait()
            finally:
                await asyncio.sleep(_POLL)
                following.cancel()
                await asyncio.gather(following, *cancelling, return_exceptions=True)
        return Launched(folder, job.id, named, task.log, code)
    finally:
        await launcher.aclose()


async def follow(log: Path, told: Callable[[str], None], begins: int = 0) -> None:
    """Tell every line that is added to ``log`` after its first ``begins`` bytes, until cancelled."""
    rest = b""
    while True:
        with suppress(FileNotFoundError), log.open("rb") as file:
            file.seek(begins)
            new = file.read()
            begins += len(new)
            *lines, rest = (rest + new).split(b"\n")
            for line in lines:
                told(line.decode(errors="replace"))
        await asyncio.sleep(_POLL)
