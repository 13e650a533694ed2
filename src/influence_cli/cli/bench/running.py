"""What benchmarks have in common: models with an answer cache, progress, results on disk and on the screen.

Invariant: every answer is kept in the benchmark's folder before it is counted, so that the same command after a stop asks
only what is missing.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from influence_cli import __version__
from influence_cli.cli import output
from influence_cli.errors import EXIT_DONE, EXIT_FAILURES
from influence_cli.plugins.registry import PluginRegistry
from influence_cli.resolution import (
    close_models,
    default_model,
    role_models,
)
from influence_cli.schemas.configs import RoleConfig, SimulationConfig
from influence_cli.schemas.messages import Role
from influence_cli.simulation.models import EMBEDDED_MINIMUM_MASS, EMBEDDED_NOTE, RoleModel
from influence_cli.store.connection import file_error
from influence_cli.store.exporters import whole_file

T = TypeVar("T")
FOLDER = Path("bench")
RESULTS = "bench.json"
_ALLOWED = 0.1
"""Share of calls that may fail before exit code 1."""


@dataclass(frozen=True)
class Bench:
    """A benchmark that is about to begin: its name, its folder, and who is asked."""

    name: str
    folder: Path
    models: dict[Role, RoleModel]

    @property
    def tested(self) -> RoleModel:
        """The model that is tested."""
        return self.models["agent"]


def prepare(
    registry: PluginRegistry,
    name: str,
    model: str | None,
    *,
    judge: str | None = None,
    roles: Sequence[Role] = ("agent",),
    options: Mapping[str, Any],
    base_url: str | None,
    out: Path | None,
) -> Bench:
    """Return the benchmark with its models loaded; InfluenceError for what the user can mend."""
    named, note = (model, "") if model else default_model()
    if note:
        output.say(note)
    folder = folder_of(name, named, out)
    given = {**options, **({"base_url": base_url} if base_url else {})}
    config = SimulationConfig(
        default=RoleConfig(model=named, options=given),
        roles={"judge": RoleConfig(model=judge)} if judge else {},
        cache=str(folder),
    )
    models = role_models(registry, config, roles=roles)
    if any(each.minimum_mass == EMBEDDED_MINIMUM_MASS for each in models.values()):
        output.say(EMBEDDED_NOTE)
    return Bench(name, folder, models)


def folder_of(name: str, model: str | None, out: Path | None) -> Path:
    """Return the folder of a benchmark: the same for the same benchmark and model, so that it is taken up."""
    named = model or default_model()[0]
    return out or FOLDER / f"{name}-{re.sub(r'[^a-z0-9]+', '-', named.lower()).strip('-')[-80:]}"


def run(bench: Bench, calls: int, work: Callable[[Callable[[int], None]], Coroutine[Any, Any, T]]) -> T:
    """Return what ``work`` comes to, its progress shown; models are closed in any case."""

    async def whole(told: Callable[[int], None]) -> T:
        try:
            return await work(told)
        finally:
            await close_models(bench.models)

    with output.progress_bar() as advance:
        return asyncio.run(whole(lambda done: advance(f"Asking {bench.tested.name}", done / max(1, calls))))


def finish(bench: Bench, document: dict[str, Any], *, as_json: bool, show: Callable[[dict[str, Any]], None]) -> int:
    """Write the results into the folder, show them, and return the exit code."""
    whole = {"schema": f"influence.bench.{bench.name}/1", "program": __version__, **document}
    save(bench.folder, whole)
    if as_json:
        output.emit_json(whole)
    else:
        show(whole)
        output.say(f"{bench.folder / RESULTS}")
    return _exit_code(whole["calls"])


def save(folder: Path, document: dict[str, Any]) -> None:
    """Write ``bench.json`` as a whole; InfluenceError where it cannot be."""
    import orjson

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise file_error(error, folder) from None
    with whole_file(folder / RESULTS) as temporary:
        temporary.write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2) + b"\n")


def dry(name: str, calls: Mapping[str, int], items: int, folder: Path, *, as_json: bool) -> None:
    """Say what a benchmark would take."""
    if as_json:
        schema = f"influence.bench.{name}.dry-run/1"
        output.emit_json({"schema": schema, "items": items, "calls": dict(calls), "folder": str(folder)})
        return
    told = ", ".join(f"{count:,} {what}" for what, count in calls.items())
    output.emit_text(f"{items:,} items: at most {told}. Nothing was done.")


def show_measures(document: dict[str, Any]) -> None:
    """Show the table of measures, and what failed."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("measure", no_wrap=True)
    for heading in ("value", "95 %", "n"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("what it is")
    for row in document["measures"]:
        limits = "" if row["low"] is None else f"{row['low']:.3f} to {row['high']:.3f}"
        value = "" if row["value"] is None else f"{row['value']:.3f}"
        table.add_row(output.plain(row["id"]), value, limits, f"{row['n']:,}", output.plain(row["title"]))
    output.emit(table)
    for who, calls in document["calls"].items():
        for kind, count in calls["failed"].items():
            output.warn(
                f"{count:,} x {who}: {kind.replace('_', ' ')}. They enter no measure; the same command asks again."
            )
        if calls["unusable"]:
            output.warn(f"{calls['unusable']:,} answers of the {who} were unusable and enter no measure.")


def _exit_code(calls: Mapping[str, Mapping[str, Any]]) -> int:
    answered = sum(each["calls"] for each in calls.values())
    failed = sum(sum(each["failed"].values()) + each["unusable"] for each in calls.values())
    if failed > _ALLOWED * max(1, answered + failed):
        output.warn(f"{failed:,} calls failed or were unusable, more than {_ALLOWED:.0%}.")
        return EXIT_FAILURES
    return EXIT_DONE
