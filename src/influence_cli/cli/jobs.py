"""``influence jobs``: what goes on by itself, what it says, and how to end it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from influence_cli.cli import output
from influence_cli.cli.context import registry_of
from influence_cli.cli.options import AsJson

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

    from influence_cli.cli.job_statuses import statuses
    from influence_cli.launching.records import read_records

    known = [(run, record) for run in _runs(folder) for record in read_records(run)]
    rows = asyncio.run(statuses(registry_of(ctx), known))
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

    from influence_cli.cli.job_statuses import job_of
    from influence_cli.launching.records import drop_records, find_record
    from influence_cli.sharding.orphans import SHARD_PREFIX
    from influence_cli.sweeps.directory import is_sweep

    run, record = find_record(_runs(folder), name)

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


def _runs(folder: Path) -> list[Path]:
    """Return the runs in ``folder``; itself, if it is one, or a sweep, which knows the jobs of its trials."""
    from influence_cli.store.run_directory import MANIFEST, run_directories
    from influence_cli.sweeps.directory import is_sweep

    return [folder] if (folder / MANIFEST).is_file() or is_sweep(folder) else run_directories(folder)
