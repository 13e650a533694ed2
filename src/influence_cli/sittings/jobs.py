"""The jobs of runs and sweeps: which there are, how they are, and how one is ended.

Launchers say how a job is; where these know nothing, the runs themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from influence_cli.errors import InfluenceError
from influence_cli.launching.protocol import Job
from influence_cli.launching.records import JobRecord, drop_records, is_called, read_records
from influence_cli.plugins.registry import PluginRegistry
from influence_cli.resolution import launcher_with
from influence_cli.sharding.orphans import SHARD_PREFIX
from influence_cli.store.reader import RunReader
from influence_cli.store.run_directory import MANIFEST, open_run, run_directories
from influence_cli.sweeps.directory import is_sweep, sweep_directories

Known = list[tuple[Path, JobRecord]]
"""Jobs, each with the run or sweep that it is of."""


def known_jobs(folder: Path, name: str | None = None, *, told: Callable[[str], None]) -> Known:
    """Return the jobs of the runs and sweeps in ``folder``, oldest first.

    ``told`` hears of what cannot be read and is left out; InfluenceError where it is of ``folder`` itself, or of the run
    called ``name``.
    """
    known: Known = []
    for run in _runs(folder):
        try:
            known += [(run, record) for record in read_records(run)]
        except InfluenceError as error:
            if run == folder or (name is not None and is_called(run, name)):
                raise
            told(str(error))
    return sorted(known, key=lambda entry: entry[1].started)


def _runs(folder: Path) -> list[Path]:
    """Return the runs and sweeps in ``folder``; itself, if it is one."""
    if (folder / MANIFEST).is_file() or is_sweep(folder):
        return [folder]
    return [*run_directories(folder), *sweep_directories(folder)]


async def end_job(registry: PluginRegistry, run: Path, record: JobRecord) -> dict[str, Any]:
    """End a job of ``run`` and return how it is then; a part of a run, or a sweep, is known as a job no more."""
    launcher, job = await _job_of(registry, record)
    try:
        await job.cancel()
        if record.name.startswith(SHARD_PREFIX) or is_sweep(run):
            drop_records(run, [record.name])
        return vars(await job.status())
    finally:
        await launcher.aclose()


async def statuses(registry: PluginRegistry, known: Known) -> list[dict[str, Any]]:
    """Return how each job is; what cannot be asked after is unknown, and says why."""
    rows = []
    launchers: dict[str, Any] = {}
    for run, record in known:
        facts = {"job": record.id, "name": record.name, "launcher": record.launcher, "run": str(run)}
        how: dict[str, Any] = {"state": "unknown", "code": None, "problem": None}
        try:
            key = f"{record.launcher} {sorted(record.options.items())}"
            if key not in launchers:
                launchers[key], job = await _job_of(registry, record)
            else:
                job = await launchers[key].attach(record.task(), record.id)
            how |= vars(await job.status())
            if how["state"] == "lost" and _has_ended(run, record):
                how["state"] = "ended"
        except InfluenceError as error:
            how["problem"] = str(error)
        rows.append({**facts, **how, "started": record.started, "log": record.log, "command": list(record.command)})
    for launcher in launchers.values():
        await launcher.aclose()
    return rows


async def _job_of(registry: PluginRegistry, record: JobRecord) -> tuple[Any, Job]:
    """Return the launcher of a job, and the job."""
    launcher = launcher_with(registry, record.launcher, record.options)
    return launcher, await launcher.attach(record.task(), record.id)


def _has_ended(run: Path, record: JobRecord) -> bool:
    """Return whether the run says how it ended, and has been written since the job began: then this has ended."""
    with suppress(OSError, ValueError):
        if (run / MANIFEST).is_file():
            directory = open_run(run)
            if directory.database.stat().st_mtime >= datetime.fromisoformat(record.started).timestamp():
                with RunReader(directory) as reader:
                    return reader.state() in ("done", "failed")
    return False
