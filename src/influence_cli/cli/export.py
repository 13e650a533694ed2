"""``influence export``: a run in another format."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from influence_cli.cli import output
from influence_cli.cli.context import registry_of


def export(
    ctx: typer.Context,
    run: Annotated[str, typer.Argument(help="A run's directory, its name, or latest.")],
    to: Annotated[str, typer.Option("--to", help="The format: jsonl, parquet, or a plugin's.")],
    out: Annotated[Path | None, typer.Option(help="The file; - is stdout.")] = None,
    option: Annotated[list[str] | None, typer.Option("--option", "-o", help="KEY=VALUE for the format.")] = None,
    json: Annotated[bool, typer.Option("--json", help="What was written, as JSON on stdout.")] = False,
) -> None:
    """Write a run's trajectories in another format."""
    from influence_cli.plugins.options import validate_options
    from influence_cli.settings import parse_assignment
    from influence_cli.sittings.opening import run_to_read
    from influence_cli.store.reader import RunReader

    component = registry_of(ctx).component("exporter", to)
    given = dict(parse_assignment(text, flag="-o") for text in option or [])
    exporter = component.load()(validate_options(component, given))
    directory = run_to_read(run, output.warn)
    target = out if out is not None else Path(f"{directory.path.resolve().name}.{exporter.suffix}")
    with RunReader(directory) as reader:
        count = exporter.export(reader, target)
    if str(target) == "-":
        return
    counts = getattr(exporter, "counts", "trajectories")
    if json:
        output.emit_json({"schema": "influence.export/1", "file": str(target), counts: count})
    else:
        output.say(f"{count:,} {counts} are in {target}.")
