"""``influence jobs``: what goes on by itself, what it says, and how to end it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

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
    """List the jobs of the runs and sweeps in a folder, and how they are."""
    import asyncio

    from influence_cli.sittings.jobs import known_jobs, statuses

    rows = asyncio.run(statuses(registry_of(ctx), known_jobs(folder, told=output.warn)))
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
    from influence_cli.sittings.jobs import known_jobs

    _, record = find_record(known_jobs(folder, name, told=output.warn), name)
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

    from influence_cli.launching.records import find_record
    from influence_cli.sittings.jobs import end_job, known_jobs

    run, record = find_record(known_jobs(folder, name, told=output.warn), name)
    status = asyncio.run(end_job(registry_of(ctx), run, record))
    if json:
        output.emit_json({"schema": "influence.jobs.cancel/1", "job": record.id, "run": str(run), **status})
    else:
        output.say(f"{record.id} has ended. To go on: --resume {run}")
