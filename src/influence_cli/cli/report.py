"""``influence report``: what runs show, on one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from influence_cli.cli import output
from influence_cli.cli.context import registry_of
from influence_cli.errors import InfluenceError


def report(
    ctx: typer.Context,
    run: Annotated[list[str], typer.Argument(help="Runs, side by side: directories, names, or latest.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="The file; else report/report.html of the first run.")
    ] = None,
    rubric: Annotated[list[Path] | None, typer.Option("--rubric", help="A file of rubrics that were asked.")] = None,
    json: Annotated[bool, typer.Option("--json", help="All figures as JSON on stdout, no page.")] = False,
    md: Annotated[bool, typer.Option("--md", help="As Markdown on stdout, no page.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only warnings.")] = False,
) -> None:
    """Report rewards, metrics, harm, targeting, shift, failures and cost of runs, with intervals.

    The page is one self-contained HTML file. A training run is reported at its last iteration, never at its best.
    """
    from influence_cli.report.catalogues import catalogue_of
    from influence_cli.report.document import report_document
    from influence_cli.sittings.opening import runs_to_read

    output.set_quiet(quiet)
    if json and md:
        raise InfluenceError("--json and --md exclude each other.")
    directories = runs_to_read(run, output.warn)
    document = report_document(directories, catalogue_of(registry_of(ctx), directories, rubric or [], told=output.say))
    if json:
        output.emit_json(document)
    elif md:
        from influence_cli.report.markdown import report_markdown

        output.emit_text(report_markdown(document))
    else:
        from influence_cli.report.pages import report_page

        write_page(report_page(document), out if out is not None else directories[0].path / "report" / "report.html")


def write_page(page: str, target: Path) -> None:
    """Write a page whole, and say how large it is."""
    from influence_cli.store.connection import file_error
    from influence_cli.store.exporters import whole_file

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise file_error(error, target.parent) from None
    with whole_file(target) as temporary:
        temporary.write_text(page, encoding="utf-8")
    output.say(f"{target}: {len(page.encode()) / 1e6:.1f} MB.")
