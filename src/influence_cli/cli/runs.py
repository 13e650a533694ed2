"""``influence runs``: what was made, and what came of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from influence_cli.cli import output
from influence_cli.cli.options import AsJson
from influence_cli.errors import EXIT_FAILURES, InfluenceError

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

app = typer.Typer(help="List, show, search, check, remove and merge runs.", no_args_is_help=True)

Run = Annotated[str, typer.Argument(help="A run's directory, its name, or latest.")]


@app.command("list")
def list_runs(
    folder: Annotated[Path, typer.Argument(help="The folder that holds runs.")] = Path("runs"), json: AsJson = False
) -> None:
    """List the runs in a folder, oldest first."""
    from influence_cli.store.queries import run_line
    from influence_cli.store.reader import RunReader
    from influence_cli.store.run_directory import open_run, run_directories

    lines: list[dict[str, Any]] = []
    for path in run_directories(folder):
        try:
            with RunReader(open_run(path)) as run:
                lines.append(run_line(run))
        except InfluenceError as error:
            lines.append({"run": path.name, "path": str(path), "state": "unreadable", "problem": str(error)})
    if json:
        output.emit_json({"schema": "influence.runs.list/1", "runs": lines})
        return
    if not lines:
        output.say(f"There is no run in {folder}.")
        return
    table = _table("run", "state", conversations="right", failed="right", rating="right", veto="right")
    for row in lines:
        if "problem" in row:
            table.add_row(output.plain(row["run"]), row["state"], "", "", "", "")
            output.warn(row["problem"])
            continue
        counts = (f"{row['complete']:,}/{row['conversations']:,}", f"{row['failed']:,}" if row["failed"] else "")
        table.add_row(
            output.plain(row["run"]), row["state"], *counts, _number(row["mean_rating"]), _number(row["mean_veto"])
        )
    output.emit(table)


@app.command()
def show(run: Run, json: AsJson = False) -> None:
    """Show a run's ratings, failures, tokens, cost and time."""
    from influence_cli.sittings.opening import run_to_read
    from influence_cli.store.queries import run_figures
    from influence_cli.store.reader import RunReader

    with RunReader(run_to_read(run, output.warn)) as reader:
        figures = run_figures(reader)
        if figures["command"] == "train":
            from influence_cli.training.report import training_figures

            figures["iterations"] = training_figures(reader)
    if json:
        output.emit_json(figures)
        return
    for part in _parts(figures):
        output.emit(part)


@app.command()
def check(run: Run, json: AsJson = False) -> None:
    """Check that a run's database is whole."""
    from influence_cli.store.check import check_run
    from influence_cli.store.run_directory import find_run, open_run

    path = find_run(run)
    problems = check_run(open_run(path))
    if json:
        output.emit_json({"schema": "influence.runs.check/1", "path": str(path), "problems": problems})
    else:
        for problem in problems:
            output.warn(output.plain(problem))
        count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
        output.say(f"{path} has {count}." if problems else f"{path} is whole.")
    if problems:
        raise typer.Exit(EXIT_FAILURES)


@app.command()
def search(
    run: Run,
    query: Annotated[str, typer.Argument(help="Words, or a phrase in quotes: '\"just stay home\"'.")],
    limit: Annotated[int, typer.Option(min=1, help="Most messages to show.")] = 20,
    json: AsJson = False,
) -> None:
    """Find messages by their words."""
    from rich.text import Text

    from influence_cli.sittings.opening import run_to_read
    from influence_cli.store.reader import RunReader
    from influence_cli.store.search import search_messages

    with RunReader(run_to_read(run, output.warn)) as reader:
        found = search_messages(reader, query, limit=limit)
    if json:
        output.emit_json({"schema": "influence.runs.search/1", "messages": [vars(entry) for entry in found]})
        return
    for entry in found:
        place = f"{entry.scenario}/{entry.initial_state} #{entry.sample}, turn {entry.turn}, {entry.speaker}: "
        line = Text(output.plain(place), style="bold")
        for part in re.split("(\x02[^\x03]*\x03)", entry.excerpt):
            line.append(
                output.plain(part.strip("\x02\x03")), style="reverse" if part.startswith("\x02") else "not bold"
            )
        output.emit(line)
    if not found:
        output.say("No message matches.")


@app.command()
def rm(
    run: Annotated[list[str], typer.Argument(help="Directories or names of runs.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing.")] = False,
) -> None:
    """Remove runs for good."""
    from influence_cli.store.run_directory import find_run, open_run, remove_run

    found = {path.resolve(): path for path in (open_run(find_run(name)).path for name in run)}
    for path in found.values():
        if not yes and not typer.confirm(f"Remove {output.plain(path)} and all its conversations?", err=True):
            output.say(f"{path} stays.")
            continue
        remove_run(path)
        output.say(f"{path} is gone.")


@app.command()
def merge(
    run: Run,
    source: Annotated[list[Path] | None, typer.Argument(help="Databases to merge; none: the run's shards.")] = None,
    json: AsJson = False,
) -> None:
    """Take the conversations of shards into a run; doing it again changes nothing."""
    from influence_cli.store.merge import merge_shards
    from influence_cli.store.run_directory import find_run, open_run

    directory = open_run(find_run(run))
    for path in source or []:
        if not path.is_file():
            raise InfluenceError(f"There is no file {path}.")
    taken = merge_shards(directory, source or None)
    if json:
        output.emit_json({"schema": "influence.runs.merge/1", "path": str(directory.path), "conversations": taken})
    else:
        output.say(f"{taken:,} conversations were taken into {directory.path}.")


# -- how it looks -----------------------------------------------------------------------------------------------------


def _table(*left: str, **justified: Any) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in left:
        table.add_column(name, overflow="fold")
    for name, justify in justified.items():
        table.add_column(name.replace("_", " "), justify=justify)
    return table


def _number(value: float | None, digits: int = 2) -> str:
    return "" if value is None else f"{value:,.{digits}f}"


def _parts(figures: dict[str, Any]) -> list[RenderableType]:
    from rich.text import Text

    blank = Text()
    parts: list[RenderableType] = [_heading(figures), blank]
    if figures.get("iterations"):
        from influence_cli.cli.training_tables import iterations_table

        parts += [iterations_table(figures["iterations"]), blank]
    for name in ("turn", "scenario", "population"):
        if figures[f"by_{name}"]:
            parts += [_ratings(name, figures[f"by_{name}"]), blank]
    adapted = bool(figures["agent_calls"])
    parts += [_calls("role\n(adapters)" if adapted else "role", figures["calls"])]
    if adapted:
        parts += [blank, _calls("agent in\niteration", figures["agent_calls"])]
    unusable = [row for row in figures["unusable"] if row["unusable"]]
    if figures["failures"] or unusable:
        parts += [blank, _trouble(figures["failures"], unusable)]
    return parts


def _heading(figures: dict[str, Any]) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    from influence_cli.sittings.lines import clock

    counts = figures["conversations"]
    told = f"{counts['complete']:,} complete, {counts['failed']:,} failed, {counts['running']:,} not finished"
    rating, veto = figures["rating"], figures["veto"]
    ends = ", ".join(f"{row['reason'].replace('_', ' ')} {row['n']:,}" for row in figures["ends"])
    models: dict[str, list[str]] = {}
    for role, model in figures["models"].items():
        models.setdefault(model, []).append(role)
    spread = f" (sd {rating['sd']:.2f})" if rating["sd"] is not None else ""
    rated = [f"{figures['mean_rating']:.2f} over complete conversations"] if figures["mean_rating"] is not None else []
    rated += [f"{_number(rating['mean'])}{spread} over {rating['n']:,} turns"] if rating["n"] else []
    entries = (
        ("run", f"{figures['run']} ({figures['state']})"),
        ("made", f"{figures['created']}, in {clock(figures['seconds'] or 0)}, seed {figures['seed']}"),
        ("environment", ", ".join(figures["environments"])),
        ("models", "; ".join(f"{model}: {', '.join(roles)}" for model, roles in models.items())),
        ("conversations", told),
        ("ends", ends),
        ("rating", "; ".join(rated) or "none"),
        ("veto", f"{_number(veto['mean'], 3)} over {veto['n']:,} turns" if veto["n"] else "none"),
        ("speculation", f"{figures['speculations_dropped']:,} user messages asked for and not needed"),
    )
    grid = Table.grid(padding=(0, 2))
    for name, value in entries:
        grid.add_row(Text(name, style="bold"), Text(output.plain(value)))
    return grid


def _ratings(name: str, rows: list[dict[str, Any]]) -> RenderableType:
    table = _table(name, ratings="right", rating="right", sd="right", veto="right")
    for row in rows:
        figures = (f"{row['n']:,}", _number(row["mean"]), _number(row["sd"]), _number(row["veto"], 3))
        table.add_row(output.plain(row[name]), *figures)
    return table


def _name_of(row: dict[str, Any]) -> str:
    """Return what a row of calls is of: an iteration, or a role with the number of its adapters."""
    if "iteration" in row:
        return f"{row['iteration']}"
    return f"{row['role']} ({row['adapters']})" if row["adapters"] else f"{row['role']}"


def _calls(title: str, rows: list[dict[str, Any]]) -> RenderableType:
    from rich.table import Table

    trouble = [name for name in ("failed", "retries") if any(row[name] for row in rows)]
    table = Table(box=None, pad_edge=False, collapse_padding=True, header_style="bold")
    table.add_column(title, no_wrap=True)
    for heading in ("calls", *trouble, "prompt\ntok", "cached", "reply\ntok", "dollars", "s per\ncall"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            output.plain(_name_of(row)),
            f"{row['calls']:,}",
            *(f"{row[name]:,}" if row[name] else "" for name in trouble),
            f"{row['prompt_tokens']:,}",
            f"{row['cached_tokens'] / row['prompt_tokens']:.0%}" if row["prompt_tokens"] else "",
            f"{row['completion_tokens']:,}",
            "?" if row["cost"] is None else _number(row["cost"], 2 if row["cost"] >= 100 else 4),
            _number(row["seconds_per_call"]),
        )
    return table


def _trouble(failures: list[dict[str, Any]], unusable: list[dict[str, Any]]) -> RenderableType:
    table = _table("what went wrong", n="right", of="right")
    for row in failures:
        table.add_row(f"conversations failed: {row['kind'].replace('_', ' ')}", f"{row['n']:,}", "")
    for row in unusable:
        told = f"unusable judgements: {row['role']} ({row['method']}, mean mass {row['mean_mass']:.2f})"
        table.add_row(told, f"{row['unusable']:,}", f"{row['n']:,}")
    return table
