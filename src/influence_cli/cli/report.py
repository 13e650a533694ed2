"""``influence report``: what runs show, on one page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from influence_cli.cli import output
from influence_cli.cli.context import registry_of
from influence_cli.errors import InfluenceError

if TYPE_CHECKING:
    from influence_cli.plugins.registry import PluginRegistry
    from influence_cli.report.measures import Catalogue
    from influence_cli.store.run_directory import RunDirectory


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
    from influence_cli.report.document import report_document
    from influence_cli.store.run_directory import find_run, open_run

    output.set_quiet(quiet)
    if json and md:
        raise InfluenceError("--json and --md exclude each other.")
    directories = [open_run(path) for path in dict.fromkeys(find_run(name) for name in run)]
    document = report_document(directories, catalogue_of(registry_of(ctx), directories, rubric or []))
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


def catalogue_of(registry: PluginRegistry, directories: list[RunDirectory], files: list[Path]) -> Catalogue:
    """Return what is known of the rubrics and metrics that the runs may hold; an environment that is gone is told."""
    from influence_cli.cli.resolution import find_environments
    from influence_cli.report.measures import Catalogue
    from influence_cli.scoring.plan import metric_score
    from influence_cli.scoring.rubric_files import pick_rubrics, shipped_rubrics

    metrics = {}
    for name in dict.fromkeys(name for directory in directories for name in _environments(directory)):
        try:
            environment = find_environments(registry, [name])[0]
        except InfluenceError as error:
            if any(name in directory.manifest.environments for directory in directories):
                output.say(f"Which way the metrics of {output.plain(name)} are harmful is not known: {error}")
            continue
        metrics[environment.name] = {
            metric.id if metric.visits else metric_score(environment.name, metric.id): metric
            for metric in environment.spec.metrics
        }
    own = {rubric.id: rubric for rubric in pick_rubrics([], files)}
    return Catalogue({**shipped_rubrics(), **own}, metrics)


def _environments(directory: RunDirectory) -> list[str]:
    return list(directory.manifest.environments) or list(directory.manifest.config.environments)
