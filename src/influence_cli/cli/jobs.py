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
    from influence_cli.launching.records import JobRecord

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
    """List the jobs of the runs and sweeps in a folder, and how they are."""
    import asyncio

    from influence_cli.cli.job_statuses import statuses

    rows = asyncio.run(statuses(registry_of(ctx), _known(folder)))
    if json:
        output.emit_json({"schema": "influence.jobs.list/1", "jobs": rows})
        return
    if not rows:
        output.say(f"No job was started for a run or sweep in {folder}.")
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
    from influence_cli.launching.logs import read_end
    from influence_cli.launching.records import find_record

    _, record = find_record(_known(folder, name), name)
    shown, ends = read_end(Path(record.log), lines)
    if shown:
        output.emit_text("\n".join(shown))
    if follow:
        import asyncio

        from influence_cli.sittings.detaching import follow as following

        asyncio.run(following(Path(record.log), output.warn, ends))
    elif not shown:
        output.say(f"{name} has said nothing yet.")


@app.command()
def cancel(ctx: typer.Context, name: Name, folder: Folder = RUNS, json: AsJson = False) -> None:
    """End a job, resumably: it is told to stop, and killed if it does not."""
    import asyncio

    from influence_cli.cli.job_statuses import job_of
    from influence_cli.launching.records import drop_records, find_record
    from influence_cli.sharding.orphans import SHARD_PREFIX
    from influence_cli.sweeps.directory import is_sweep

    run, record = find_record(_known(folder, name), name)

    async def end() -> dict[str, Any]:
        launcher, job = await job_of(registry_of(ctx), record)
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


def _known(folder: Path, name: str | None = None) -> list[tuple[Path, JobRecord]]:
    """Return the jobs of the runs and sweeps in ``folder``, oldest first, each with where it is of.

    What cannot be read is told and left out; InfluenceError where it is of ``folder`` itself, or of the run called ``name``.
    """
    from influence_cli.launching.records import is_called, read_records

    known: list[tuple[Path, JobRecord]] = []
    for run in _runs(folder):
        try:
            known += [(run, record) for record in read_records(run)]
        except InfluenceError as error:
            if run == folder or (name is not None and is_called(run, name)):
                raise
            output.warn(str(error))
    return sorted(known, key=lambda entry: entry[1].started)


def _runs(folder: Path) -> list[Path]:
    """Return the runs and sweeps in ``folder``; itself, if it is one."""
    from influence_cli.store.run_directory import MANIFEST, run_directories
    from influence_cli.sweeps.directory import is_sweep, sweep_directories

    if (folder / MANIFEST).is_file() or is_sweep(folder):
        return [folder]
    return [*run_directories(folder), *sweep_directories(folder)]
