"""``influence sweep show``, ``best`` and ``report``: what a sweep came to."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from influence_cli.cli import output
from influence_cli.cli.context import registry_of
from influence_cli.cli.options import AsJson

Name = Annotated[str, typer.Argument(help="The sweep: its folder, its name, or latest.")]
By = Annotated[
    str | None, typer.Option("--importance", help="ped-anova, fanova or variance; else the first that there is.")
]


def show(ctx: typer.Context, sweep: Name, importance: By = None, json: AsJson = False) -> None:
    """Show the trials, which parameters matter, and the best or the Pareto front."""
    from influence_cli.cli.sweep.tables import sweep_parts

    document = _document(ctx, sweep, importance)
    if json:
        output.emit_json(document)
        return
    for part in sweep_parts(document):
        output.emit(part)


def best(
    ctx: typer.Context,
    sweep: Name,
    trial: Annotated[int | None, typer.Option(help="This trial in place of the best.")] = None,
    json: AsJson = False,
) -> None:
    """Show the best trial: its parameters, its run, and the command that has it again."""
    from influence_cli.cli.sweep.tables import verdict, with_interval
    from influence_cli.sittings.lines import number
    from influence_cli.sweeps.figures import best_document

    document = _document(ctx, sweep, None)
    shown = best_document(document, trial)
    if json:
        output.emit_json(shown)
        return
    found = shown["trial"]
    lines = [f"trial {found['number']} ({found['state']})"]
    lines += [f"  {name} = {number(value)}" for name, value in found["parameters"].items()]
    lines += [f"  {each['objective']}: {with_interval(each)}" for each in found["values"]]
    lines += [f"run: {path}" for path in found["runs"]]
    output.emit_text("\n".join([*lines, f"again: {found['again']}"]))
    output.say(verdict(document))


def report(
    ctx: typer.Context,
    sweep: Name,
    out: Annotated[Path | None, typer.Option("--out", help="The file; else report/report.html of the sweep.")] = None,
    importance: By = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only warnings.")] = False,
) -> None:
    """Write one self-contained page: parallel coordinates, importance, Pareto front, every trial."""
    from influence_cli.cli.report import write_page
    from influence_cli.report.sweep_page import sweep_page

    output.set_quiet(quiet)
    document = _document(ctx, sweep, importance)
    write_page(sweep_page(document), out or Path(document["path"]) / "report" / "report.html")


def _document(ctx: typer.Context, sweep: str, importance: str | None) -> dict[str, Any]:
    from influence_cli.sittings.sweep.figures import document_of
    from influence_cli.sweeps.directory import find_sweep, open_sweep

    return document_of(registry_of(ctx), open_sweep(find_sweep(sweep)), importance)
