"""How the jobs of runs are: what their launchers say, and where these know nothing, the runs themselves."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from influence_cli.errors import InfluenceError
from influence_cli.launching.protocol import Job
from influence_cli.launching.records import JobRecord
from influence_cli.plugins.registry import PluginRegistry
from influence_cli.resolution import launcher_with
from influence_cli.store.reader import RunReader
from influence_cli.store.run_directory import MANIFEST, open_run


async def statuses(registry: PluginRegistry, known: list[tuple[Path, JobRecord]]) -> list[dict[str, Any]]:
    """Return how each job is; what cannot be asked after is unknown, and says why."""
    rows = []
    launchers: dict[str, Any] = {}
    for run, record in known:
        facts = {"job": record.id, "name": record.name, "launcher": record.launcher, "run": str(run)}
        how: dict[str, Any] = {"state": "unknown", "code": None, "problem": None}
        try:
            key = f"{record.launcher} {sorted(record.options.items())}"
            if key not in launchers:
                launchers[key], job = await job_of(registry, record)
            else:
                job = await launchers[key].attach(record.task(), record.id)
            how |= vars(await job.status())
            if how["state"] == "lost" and _is_done(run, record):
                how["state"] = "ended"
        except InfluenceError as error:
            how["problem"] = str(error)
        rows.append({**facts, **how, "started": record.started, "log": record.log, "command": list(record.command)})
    for launcher in launchers.values():
        await launcher.aclose()
    return rows


async def job_of(registry: PluginRegistry, record: JobRecord) -> tuple[Any, Job]:
    """Return the launcher of a job, and the job."""
    launcher = launcher_with(registry, record.launcher, record.options)
    return launcher, await launcher.attach(record.task(), record.id)


def _is_done(run: Path, record: JobRecord) -> bool:
    """Return whether the run says that it is done, and has been written since the job began: then this has ended."""
    with suppress(OSError, ValueError):
        if (run / MANIFEST).is_file():
            directory = open_run(run)
            if directory.database.stat().st_mtime >= datetime.fromisoformat(record.started).timestamp():
                with RunReader(directory) as reader:
                    return reader.state() == "done"
    return False
