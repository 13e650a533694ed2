"""``influence jobs``: what goes on by itself, what it says, and how to end it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from influence_cli.cli import output
from influence_cli.cli.context import registry_of
from influence_cli.cli.options import AsJson
from influence_cli.errors import InfluenceError

if TYPE_CHECKING:
    from influence_cli.launching.protocol import Job
    from influence_cli.launching.records import JobRecord
    from influence_cli.plugins.registry import PluginRegistry

app = typer.Typer(help="List, read and cancel what was started with --detach.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="A job's identifier, or its run: the run's last job.", metavar="JOB")]
Folder = Annotated[Path, typer.Option("--folder", help="The folder that holds runs.")]
RUNS = Path("runs")


@app.command("list")
def list_jobs(
    ctx: typer.Context,
    folder: Annotated[Path, typer.Argument(help="The folder that holds runs.")] = RUNS,
    json: AsJson = False,
) -> None:
    """List the jobs of the runs in a folder, and how they are."""
    import asyncio

    from influence_cli.launching.records import read_records

    known = [(run, record) for run in _runs(folder) for record in read_records(run)]
    rows = asyncio.run(_statuses(registry_of(ctx), known))
    if json:
        output.emit_json({"schema": "influence.jobs.list/1", "jobs": rows})
        return
    if not rows:
        output.say(f"No job was started for a run in {folder}.")
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("job", "launcher", "run", "state", "code", "started"):
        table.add_column(heading, overflow="fold")
    for row in rows:
        code = "" if row["code"] is None else str(row["code"])
        run = Path(row["run"]).name
        table.add_row(*map(output.plain, (row["job"], row["launcher"], run, row["state"], code, row["started"])))
        if row["problem"]:
            output.warn(f"{output.plain(row['job'])}: {row['problem']}")
    output.emit(table)


@app.command()
def logs(
    name: Name,
    folder: Folder = RUNS,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on showing what it says.")] = False,
    lines: Annotated[int | None, typer.Option("--lines", "-n", min=1, help="Only the last ones.")] = None,
) -> None:
    """Show what a job has said."""
    from influence_cli.launching.records import find_record

    _, record = find_record(_runs(folder), name)
    try:
        text = Path(record.log).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        text = ""
    shown = text.splitlines()[-(lines or 0) :]
    if shown:
        output.emit_text("\n".join(shown))
    if follow:
        import asyncio

        from influence_cli.cli.detaching import follow as following

        asyncio.run(following(Path(record.log), len(text.encode())))
    elif not shown:
        output.say(f"{name} has said nothing yet.")


@app.command()
def cancel(ctx: typer.Context, name: Name, folder: Folder = RUNS, json: AsJson = False) -> None:
    """End a job, resumably: it is told to stop, and killed if it does not."""
    import asyncio

    from influence_cli.launching.records import drop_records, find_record
    from influence_cli.sharding.orphans import SHARD_PREFIX
    from influence_cli.sweeps.directory import is_sweep

    run, record = find_record(_runs(folder), name)

    async def end() -> dict[str, Any]:
        launcher, job = await _job(registry_of(ctx), record)
        try:
            await job.cancel()
            if record.name.startswith(SHARD_PREFIX) or is_sweep(run):
                drop_records(run, [record.name])
            return vars(await job.status())
        finally:
            await launcher.aclose()

    status = asyncio.run(end())
    if json:
        output.emit_json({"schema": "influence.jobs.cancel/1", "job": record.id, "run": str(run), **status})
    else:
        output.say(f"{record.id} has ended. To go on: --resume {run}")


def _runs(folder: Path) -> list[Path]:
    """Return the runs in ``folder``; itself, if it is one, or a sweep, which knows the jobs of its trials."""
    from influence_cli.store.run_directory import MANIFEST, run_directories
    from influence_cli.sweeps.directory import is_sweep

    return [folder] if (folder / MANIFEST).is_file() or is_sweep(folder) else run_directories(folder)


async def _job(registry: PluginRegistry, record: JobRecord) -> tuple[Any, Job]:
    """Return the launcher of a job, and the job."""
    from influence_cli.resolution import launcher_with

    launcher = launcher_with(registry, record.launcher, record.options)
    return launcher, await launcher.attach(record.task(), record.id)


def _is_done(run: Path, record: JobRecord) -> bool:
    """Return whether the run says that it is done, and has been written since the job began: then this has ended."""
    from contextlib import suppress
    from datetime import datetime

    from influence_cli.store.reader import RunReader
    from influence_cli.store.run_directory import MANIFEST, open_run

    with suppress(OSError, ValueError):
        if (run / MANIFEST).is_file():
            directory = open_run(run)
            if directory.database.stat().st_mtime >= datetime.fromisoformat(record.started).timestamp():
                with RunReader(directory) as reader:
                    return reader.state() == "done"
    return False


async def _statuses(registry: PluginRegistry, known: list[tuple[Path, JobRecord]]) -> list[dict[str, Any]]:
    """Return how each job is; what cannot be asked after is unknown, and says why."""
    rows = []
    launchers: dict[str, Any] = {}
    for run, record in known:
        facts = {"job": record.id, "name": record.name, "launcher": record.launcher, "run": str(run)}
        how: dict[str, Any] = {"state": "unknown", "code": None, "problem": None}
        try:
            key = f"{record.launcher} {sorted(record.options.items())}"
            if key not in launchers:
                launchers[key], job = await _job(registry, record)
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
