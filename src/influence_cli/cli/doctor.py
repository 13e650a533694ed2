"""``influence doctor``: versions, accelerators, keys, plugins, room, and whether models answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from influence_cli.cli import output
from influence_cli.cli.context import registry_of
from influence_cli.cli.listening import Talk
from influence_cli.cli.options import AsJson, Server, ServerOptions, backend_options
from influence_cli.errors import EXIT_DONE, EXIT_FAILURES

Line = tuple[str, str, str]
"""What it is, its state, and what is to be said of it."""
_WIDTHS = (len("accelerator"), len("unavailable"))


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
    from influence_cli.sittings import doctor as checks

    registry = registry_of(ctx)
    names = checks.configured_models(model or [], config or [])
    document: dict[str, Any] = {"schema": "influence.doctor/1"}
    for what, part in checks.checked_machine(registry):
        document |= part
        if not json:
            _show(_LINES[what](part))
    document["models"] = []
    for found in checks.checked_models(registry, names, backend_options(option) or {}, base_url, seconds, Talk()):
        document["models"].append(found)
        if not json:
            _show(_model_line(found))
    document["broken"] = checks.broken(document)
    if json:
        output.emit_json(document)
    else:
        _show(() if names else [("model", "not asked", "--model NAME asks one a short thing")])
        for line in document["broken"]:
            output.warn(f"Broken: {output.plain(line)}")
    code = EXIT_FAILURES if document["broken"] else EXIT_DONE
    if checks.is_stuck():
        output.end_at_once(code)
    if code != EXIT_DONE:
        raise typer.Exit(code)


def _show(lines: Iterable[Line]) -> None:
    """Show a section; the columns of all stand under each other."""
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    for width in _WIDTHS:
        grid.add_column(no_wrap=True, min_width=width)
    grid.add_column(overflow="fold")
    for what, state, told in lines:
        grid.add_row(Text(what, style="bold"), Text(state), Text(output.plain(told)))
    if grid.row_count:
        output.emit(grid)


def _version_lines(found: dict[str, Any]) -> Iterator[Line]:
    yield "influence", found["influence"], f"Python {found['python']}, {found['machine']}"
    libraries = found["libraries"]
    yield "libraries", "", ", ".join(f"{name} {version}" for name, version in libraries.items() if version)
    missing = [name for name, version in libraries.items() if version is None]
    if missing:
        yield "", "not there", ", ".join(missing)


def _gpu_lines(part: dict[str, Any]) -> Iterator[Line]:
    found = part["accelerators"]
    for gpu in found["gpus"]:
        yield "accelerator", "ok", f"{gpu['name']}, {gpu['used_mib']} of {gpu['memory_mib']} MiB used, {gpu['driver']}"
    if not found["gpus"]:
        yield "accelerator", found["state"], found["problem"] or ""


def _key_lines(part: dict[str, Any]) -> Iterator[Line]:
    for key in part["keys"]:
        yield "key", "set" if key["set"] else "not set", f"{key['variable']}, for {key['of']}"


def _plugin_lines(part: dict[str, Any]) -> Iterator[Line]:
    components = part["plugins"]["components"]
    sound = [each["name"] for each in components if each["state"] == "ok"]
    yield "plugins", "ok", ", ".join(dict.fromkeys(sound))
    for each in components:
        if each["state"] == "unavailable":
            yield "plugins", each["state"], f"{each['kind']} {each['name']}: {each['problem']}. {each['mend']}"


def _folder_lines(part: dict[str, Any]) -> Iterator[Line]:
    for folder in part["folders"]:
        free = "" if folder["free_bytes"] is None else f", {folder['free_bytes'] / 1e9:,.1f} GB free"
        yield folder["folder"], folder["state"], f"{folder['path']}{free}"


def _model_line(found: dict[str, Any]) -> Iterator[Line]:
    told = found["problem"] or f"{found['tokens']} tokens in {found['seconds']:.2f} s"
    yield "model", found["state"], f"{found['model']}: {told}"


_LINES: dict[str, Callable[[dict[str, Any]], Iterator[Line]]] = {
    "versions": _version_lines,
    "accelerators": _gpu_lines,
    "keys": _key_lines,
    "plugins": _plugin_lines,
    "folders": _folder_lines,
}
"""How each part of the document is shown."""
