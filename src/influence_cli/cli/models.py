"""``influence models``: which models are at hand, and fetching one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from influence_cli.cli import output
from influence_cli.cli.context import registry_of
from influence_cli.cli.options import AsJson
from influence_cli.errors import InfluenceError

if TYPE_CHECKING:
    from influence_cli.backends.protocol import ModelCatalog
    from influence_cli.plugins.registry import PluginRegistry

app = typer.Typer(help="List models, and fetch one.", no_args_is_help=True)


@app.command("list")
def list_models(
    ctx: typer.Context,
    backend: Annotated[str | None, typer.Option(help="Only this backend's.")] = None,
    json: AsJson = False,
) -> None:
    """List the models that backends know; a server that cannot be asked is passed over and named."""
    from rich.table import Table

    registry = registry_of(ctx)
    rows: list[Any] = []
    for name in _catalog_names(registry, backend):
        try:
            rows.extend(_catalog(registry, name).models())
        except InfluenceError as error:
            if backend is not None:
                raise
            output.say(f"{name}: {error}")
    if json:
        output.emit_json({"schema": "influence.models.list/1", "models": rows})
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("model", overflow="fold")
    table.add_column("state", no_wrap=True)
    table.add_column("MB", justify="right")
    table.add_column("what it is")
    for row in rows:
        size = "" if row.size_bytes is None else f"{row.size_bytes / 1e6:,.0f}"
        table.add_row(output.plain(row.name), row.state, size, output.plain(row.summary))
    output.emit(table)


@app.command()
def show(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="BACKEND:MODEL, or a model's name alone.")],
    json: AsJson = False,
) -> None:
    """Show where a model lies."""
    from rich.table import Table

    from influence_cli.errors import UnknownNameError

    registry = registry_of(ctx)
    backend, _, model = name.rpartition(":")
    known = [info for each in _catalog_names(registry, backend or None) for info in _models(registry, each)]
    found = [info for info in known if info.name == name or info.name.partition(":")[2] == model]
    if not found:
        raise UnknownNameError("model", name, [info.name for info in known])
    if json:
        output.emit_json({"schema": "influence.models.show/1", **found[0].model_dump(mode="json")})
        return
    facts = Table.grid(padding=(0, 2))
    for heading, value in found[0].model_dump().items():
        facts.add_row(heading, output.plain("" if value is None else value))
    output.emit(facts)


@app.command()
def pull(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="BACKEND:MODEL, or smollm2.")],
    json: AsJson = False,
) -> None:
    """Fetch a model, so that a later run finds it."""
    registry = registry_of(ctx)
    backend, _, model = name.partition(":") if ":" in name else ("transformers", "", name)
    with output.progress_bar() as advance:
        path = _catalog(registry, backend).pull(model, advance)
    if json:
        output.emit_json({"schema": "influence.models.pull/1", "model": f"{backend}:{model}", "path": str(path)})
    else:
        output.emit(output.plain(path))


def _catalog_names(registry: PluginRegistry, backend: str | None) -> list[str]:
    if backend is not None:
        registry.component("catalog", backend)
        return [backend]
    return [offer.component.name for offer in registry.offers("catalog") if offer.state == "ok"]


def _catalog(registry: PluginRegistry, backend: str) -> ModelCatalog:
    component = registry.component("catalog", backend)
    catalog: ModelCatalog = component.load()(component.options())
    return catalog


def _models(registry: PluginRegistry, backend: str) -> list[Any]:
    try:
        return list(_catalog(registry, backend).models())
    except InfluenceError as error:
        output.say(f"{backend}: {error}")
        return []
