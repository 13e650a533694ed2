"""``influence plugins``: what is installed, what it offers, and what is wrong with it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from influence_cli.cli import output
from influence_cli.cli.context import registry_of
from influence_cli.cli.options import AsJson
from influence_cli.errors import EXIT_FAILURES

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

app = typer.Typer(help="List, show and check plugins.", no_args_is_help=True)


@app.command("list")
def list_plugins(ctx: typer.Context, json: AsJson = False) -> None:
    """List what plugins offer; what cannot be used stands there with its mend."""
    from influence_cli.plugins.facts import plugin_facts, problem_lines

    registry = registry_of(ctx)
    components, problems = plugin_facts(registry)
    if json:
        output.emit_json({"schema": "influence.plugins.list/1", "components": components, "problems": problems})
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("kind", "name", "from", "state"):
        table.add_column(heading, no_wrap=True)
    table.add_column("what it does")
    for each in components:
        origin = output.plain(f"{each['distribution']} {each['version']}")
        table.add_row(each["kind"], output.plain(each["name"]), origin, each["state"], output.plain(each["summary"]))
    output.emit(table)
    for line in problem_lines(registry):
        output.warn(output.plain(line))


@app.command()
def show(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="Name of a backend, exporter, ...")],
    json: AsJson = False,
) -> None:
    """Show what a component does, and its options."""
    from rich.table import Table
    from rich.text import Text

    from influence_cli.plugins.facts import offer_facts, offers_of

    offers = offers_of(registry_of(ctx), name)
    if json:
        output.emit_json(
            {
                "schema": "influence.plugins.show/1",
                "components": [
                    {**offer_facts(offer), "options": offer.component.options.model_json_schema()} for offer in offers
                ],
            }
        )
        return
    for offer in offers:
        heading = f"{offer.kind} {name} ({offer.distribution} {offer.version}, {offer.state})"
        output.emit(Text(output.plain(heading), style="bold"))
        output.emit(Text(output.plain(offer.component.summary)))
        if offer.problem:
            output.warn(f"{offer.problem}. {offer.mend or ''}".strip())
        if offer.kind == "catalog" or not offer.component.options.model_fields:
            continue
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("option", no_wrap=True)
        for column in ("type", "default"):
            table.add_column(column, overflow="fold", max_width=24)
        table.add_column("what it sets", overflow="fold")
        for option, field in offer.component.options.model_fields.items():
            table.add_row(option, *(output.plain(text) for text in _described(field)))
        output.emit(table)


@app.command()
def doctor(ctx: typer.Context, json: AsJson = False) -> None:
    """Check every plugin: load what it offers, and say how to mend what is broken."""
    from influence_cli.plugins.facts import checked_plugins, is_broken, problem_lines

    registry = registry_of(ctx)
    results, problems = checked_plugins(registry)
    if json:
        output.emit_json({"schema": "influence.plugins.doctor/1", "components": results, "problems": problems})
    else:
        for result in results:
            told = f"{result['kind']} {result['name']}: {result['state']}"
            detail = f": {result['problem']}. {result['mend'] or ''}" if result["problem"] else ""
            output.emit(output.plain(f"{told}{detail}".strip()))
        for line in problem_lines(registry):
            output.warn(output.plain(line))
    if problems or any(map(is_broken, results)):
        raise typer.Exit(EXIT_FAILURES)


@app.command()
def new(
    ctx: typer.Context,
    kind: Annotated[str, typer.Argument(help="backend, environment, algorithm or scorer.")],
    name: Annotated[str, typer.Argument(help="Its name: small letters, digits and hyphens.")],
    out: Annotated[Path, typer.Option("--out", help="The folder to make influence-NAME in.")] = Path(),
    json: AsJson = False,
) -> None:
    """Write a plugin to start from: a package with an entry point, and tests that it passes."""
    from influence_cli.scaffolding.plugins import write_plugin

    folder = write_plugin(registry_of(ctx), kind, name, out)
    pinned = "-c constraints.txt " if Path("constraints.txt").is_file() else ""
    output.say(f"Made {folder}. Next: pip install {pinned}-e '{folder}[test]'; pytest {folder}")
    if json:
        output.emit_json({"schema": "influence.plugins.new/1", "kind": kind, "name": name, "path": str(folder)})
    else:
        output.emit_text(str(folder))


def _described(field: FieldInfo) -> tuple[str, str, str]:
    """Return type, default and description of an option."""
    from annotated_types import Ge, Gt, Le, Lt

    annotation = field.annotation
    kind = getattr(annotation, "__name__", None) if isinstance(annotation, type) else str(annotation)
    kind = (kind or "").replace("typing.", "")
    bounds = []
    for entry in field.metadata:
        for bound, sign in ((Ge, ">="), (Gt, ">"), (Le, "<="), (Lt, "<")):
            if isinstance(entry, bound):
                bounds.append(f"{sign} {getattr(entry, bound.__name__.lower())}")
    limits = f" ({', '.join(bounds)})" if bounds else ""
    default = "required" if field.is_required() else str(field.get_default(call_default_factory=True))
    return f"{kind}{limits}", default, field.description or ""
