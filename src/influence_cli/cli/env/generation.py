"""``influence env generate``: further initial states, written by a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from influence_cli.cli import output
from influence_cli.cli.context import registry_of
from influence_cli.cli.env.options import Folders, Model, Name
from influence_cli.cli.listening import Talk
from influence_cli.cli.options import AnySeed, AsJson, Server, ServerOptions, backend_options
from influence_cli.errors import EXIT_STOPPED

if TYPE_CHECKING:
    from influence_cli.sittings.generate import Written


def generate(
    ctx: typer.Context,
    name: Name,
    scenario: Annotated[str, typer.Option("--scenario", help="The scenario to write for.")],
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="How many the file shall hold in all.")] = 16,
    model: Model = None,
    base_url: Server = None,
    option: ServerOptions = None,
    seed: AnySeed = 0,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests at once.")] = 8,
    out: Annotated[Path | None, typer.Option("--out", help="The file; else beside the scenario.")] = None,
    environments_dir: Folders = None,
    json: AsJson = False,
) -> None:
    """Have a model write further initial states of a scenario; run it again to go on.

    They are kept in scenarios/SCENARIO.more.yaml with their provenance; near-duplicates and invalid ones are rejected.
    """
    from influence_cli.sittings.generate import StatesRequest
    from influence_cli.sittings.generate import generate as sit

    request = StatesRequest(
        environment=name,
        scenario=scenario,
        count=count,
        seed=seed,
        concurrency=concurrency,
        out=out,
        folders=environments_dir or (),
        model=model,
        options=backend_options(option) or {},
        base_url=base_url,
    )
    written = sit(registry_of(ctx), request, Talk())
    if json:
        output.emit_json(written.document())
    else:
        _show(written)
    if written.stopped:
        output.warn("Stopped by a signal; the same command goes on.")
        raise typer.Exit(EXIT_STOPPED)


def _show(written: Written) -> None:
    tally = written.tally
    why = "; ".join(f"{n} x {reason}" for reason, n in tally.rejected.most_common()) or "none"
    output.emit_text(
        f"{written.collection.path}: {len(written.collection.states)} states, {tally.accepted} of them new from "
        f"{tally.attempts} answers. Rejected: {why}. Read them before you use them."
    )
