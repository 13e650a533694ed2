"""Running a command as one task of a launcher: waited for with its log shown, or left to itself."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import typer

from influence_cli.cli import output
from influence_cli.cli.launching import launcher_options, parse_resources
from influence_cli.errors import EXIT_FAILURES
from influence_cli.launching.commands import program
from influence_cli.launching.protocol import Job, Launcher, Task
from influence_cli.launching.records import add_record, record_of
from influence_cli.launching.signals import hearing_stops
from influence_cli.plugins.registry import PluginRegistry
from influence_cli.resolution import LOCAL, check_launcher, launcher_with

_POLL = 0.3


@dataclass(frozen=True)
class Place:
    """Where a command is to run, as it was asked for."""

    launcher: str | None
    options: Sequence[str] | None
    resources: str | None
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
    check_launcher(registry, place.launcher or LOCAL, launcher_options(place.options))
    parse_resources(place.resources)


def launch(registry: PluginRegistry, folder: Path, name: str, arguments: Sequence[str], place: Place) -> Launched:
    """Run the command ``name`` on the run in ``folder`` where ``place`` says; return what became of it."""
    log = folder.resolve() / "logs" / f"{name}.log"
    task = Task(name, program(name, *arguments), log, parse_resources(place.resources), outlives=place.detach)
    named, options = place.launcher or LOCAL, launcher_options(place.options)
    launcher = launcher_with(registry, named, options)
    if not place.detach:
        return asyncio.run(_attended(launcher, task, folder, named))

    async def leave() -> Job:
        try:
            return await launcher.start(task)
        finally:
            await launcher.aclose()

    job = asyncio.run(leave())
    started = datetime.now(UTC).isoformat(timespec="seconds")
    add_record(folder, record_of(task, job.id, named, options, started))
    return Launched(folder, job.id, named, log)


def show_launched(launched: Launched, *, as_json: bool) -> None:
    """Show what became of a command that was launched; end with its exit code."""
    if as_json:
        output.emit_json(launched.document())
    elif launched.code is None:
        output.emit_text(f"Job {launched.job} works on {launched.folder}.")
        output.emit_text(f"To look at it: influence jobs list; influence jobs logs {launched.job} --follow")
    else:
        output.emit_text(f"To look at it: influence runs show {launched.folder}")
    if launched.code:
        raise typer.Exit(launched.code if launched.code > 0 else EXIT_FAILURES)


async def _attended(launcher: Launcher, task: Task, folder: Path, named: str) -> Launched:
    """Wait for a task, and say what it says; a signal ends it resumably, a second one at once."""
    begins = task.log.stat().st_size if task.log.is_file() else 0
    try:
        job = await launcher.start(task)
        cancelling: list[asyncio.Task[None]] = []

        def asked_to_stop() -> None:
            end = job.cancel if not cancelling else launcher.aclose
            cancelling.append(asyncio.create_task(end()))

        with hearing_stops(asked_to_stop):
            following = asyncio.create_task(follow(task.log, begins))
            try:
                code = await job.wait()
            finally:
                await asyncio.sleep(_POLL)
                following.cancel()
                await asyncio.gather(following, *cancelling, return_exceptions=True)
        return Launched(folder, job.id, named, task.log, code)
    finally:
        await launcher.aclose()


async def follow(log: Path, begins: int = 0) -> None:
    """Say every line that is added to ``log`` after its first ``begins`` bytes, until cancelled."""
    rest = b""
    while True:
        with suppress(FileNotFoundError), log.open("rb") as file:
            file.seek(begins)
            new = file.read()
            begins += len(new)
            *lines, rest = (rest + new).split(b"\n")
            for line in lines:
                output.warn(line.decode(errors="replace"))
        await asyncio.sleep(_POLL)
