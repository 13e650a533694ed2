"""``influence doctor``: versions, accelerators, keys, plugins, room, and whether models answer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from influence_cli.cli import output
from influence_cli.cli.context import registry_of
from influence_cli.cli.options import AsJson, Server, ServerOptions, backend_options
from influence_cli.errors import EXIT_FAILURES


def doctor(
    ctx: typer.Context,
    model: Annotated[
        list[str] | None, typer.Option("--model", "-m", help="BACKEND:MODEL to ask one thing (repeatable).")
    ] = None,
    config: Annotated[
        list[Path] | None, typer.Option("--config", "-c", help="Settings whose models are asked.")
    ] = None,
    base_url: Server = None,
    option: ServerOptions = None,
    seconds: Annotated[float, typer.Option("--seconds", min=0.1, help="Longest wait for a model.")] = 60.0,
    json: AsJson = False,
) -> None:
    """Say what this machine has, what is missing, and how to mend it; ask each model that is named one short thing.

    Ends with 1 if something is broken: a plugin, a folder that cannot be written, a model that gives no answer.
    """
    from influence_cli.cli import doctoring
    from influence_cli.cli.plugins import checked_plugins

    registry = registry_of(ctx)
    names = doctoring.configured_models(model or [], config or [])
    options = backend_options(option) or {}
    components, problems = checked_plugins(registry)
    document: dict[str, Any] = {
        "schema": "influence.doctor/1",
        **doctoring.checked_versions(),
        "accelerators": doctoring.checked_gpus(),
        "keys": doctoring.checked_keys(registry),
        "plugins": {"components": components, "problems": problems},
        "folders": doctoring.checked_folders(),
        "models": [doctoring.checked_model(registry, name, options, base_url, seconds) for name in names],
    }
    document["broken"] = _broken(document)
    if json:
        output.emit_json(document)
    else:
        _show(document)
    if document["broken"]:
        raise typer.Exit(EXIT_FAILURES)


def _broken(document: dict[str, Any]) -> list[str]:
    """Return a line on each thing that does not work and should."""
    plugins = document["plugins"]
    lines = [
        f"{each['kind']} {each['name']}: {each['problem']}. {each['mend'] or ''}".strip()
        for each in plugins["components"]
        if each["state"] in ("broken", "duplicate")
    ]
    lines += [f"plugin {each['name']}: {each['problem']}. {each['mend'] or ''}".strip() for each in plugins["problems"]]
    lines += [
        f"{each['folder']} {each['path']}: {each['problem']}. {each['mend']}"
        for each in document["folders"]
        if each["state"] == "broken"
    ]
    lines += [f"model {each['model']}: {each['problem']}" for each in document["models"] if each["state"] == "broken"]
    accelerators = document["accelerators"]
    return [*lines, accelerators["problem"]] if accelerators["state"] == "broken" else lines


def _show(document: dict[str, Any]) -> None:
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for what, state, told in _lines(document):
        grid.add_row(Text(what, style="bold"), Text(state), Text(output.plain(told)))
    output.emit(grid)
    for line in document["broken"]:
        output.warn(f"Broken: {output.plain(line)}")


def _lines(document: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Yield what it is, its state, and what is to be said of it."""
    yield "influence", document["influence"], f"Python {document['python']}, {document['machine']}"
    libraries = document["libraries"]
    yield "libraries", "", ", ".join(f"{name} {version}" for name, version in libraries.items() if version)
    missing = [name for name, version in libraries.items() if version is None]
    if missing:
        yield "", "not there", ", ".join(missing)
    gpus = document["accelerators"]["gpus"]
    for gpu in gpus:
        yield "accelerator", "ok", f"{gpu['name']}, {gpu['used_mib']} of {gpu['memory_mib']} MiB used, {gpu['driver']}"
    if not gpus:
        yield "accelerator", document["accelerators"]["state"], document["accelerators"]["problem"] or ""
    for key in document["keys"]:
        yield "key", "set" if key["set"] else "not set", f"{key['variable']}, for {key['of']}"
    sound = [each["name"] for each in document["plugins"]["components"] if each["state"] == "ok"]
    yield "plugins", "ok", ", ".join(dict.fromkeys(sound))
    for each in document["plugins"]["components"]:
        if each["state"] == "unavailable":
            yield "plugins", each["state"], f"{each['kind']} {each['name']}: {each['problem']}. {each['mend']}"
    for folder in document["folders"]:
        free = "" if folder["free_bytes"] is None else f", {folder['free_bytes'] / 1e9:,.1f} GB free"
        yield folder["folder"], folder["state"], f"{folder['path']}{free}"
    for model in document["models"]:
        told = model["problem"] or f"{model['tokens']} tokens in {model['seconds']:.2f} s"
        yield "model", model["state"], f"{model['model']}: {told}"
    if not document["models"]:
        yield "model", "not asked", "--model NAME asks one a short thing"
