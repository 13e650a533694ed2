"""``influence env audit``: how true to life an environment and its simulated users are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from influence_cli.cli import output
from influence_cli.cli.context import registry_of
from influence_cli.cli.env.options import Folders, Model, Name
from influence_cli.cli.listening import Talk
from influence_cli.cli.options import (
    AsJson,
    Assignments,
    Config,
    MaxCost,
    MaxTokens,
    Server,
    ServerOptions,
    backend_options,
    given,
)
from influence_cli.errors import EXIT_DONE

if TYPE_CHECKING:
    from influence_cli.sittings.audit import Audited


def audit(
    ctx: typer.Context,
    name: Name,
    model: Model = None,
    base_url: Server = None,
    option: ServerOptions = None,
    n: Annotated[int | None, typer.Option("--n", "-n", min=0, help="Sample conversations, else 16; 0: none.")] = None,
    states: Annotated[int | None, typer.Option("--states", min=0, help="Initial states to judge; else all.")] = None,
    turns: Annotated[int | None, typer.Option("--turns", min=1, help="Most agent replies.")] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests at once.")] = 32,
    seed: Annotated[int | None, typer.Option("--seed", help="From which every draw derives.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the sample's run and of answers.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the audit in --out, or the latest run.")] = False,
    environments_dir: Folders = None,
    max_failed_share: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Failed judgements before exit code 1.")
    ] = 0.1,
    max_cost: MaxCost = None,
    max_tokens: MaxTokens = None,
    config: Config = None,
    assignments: Assignments = None,
    json: AsJson = False,
) -> None:
    """Judge initial states and a sample of conversations for realism, and count the faults of simulated users.

    The judge's figures are worth as much as the judge; the faults are counted in the text. The sample is kept as a run,
    with every answer beside it: after a stop, --resume asks only what is missing.
    """
    from influence_cli.cli.simulate import FLAGS
    from influence_cli.sittings.audit import AuditRequest
    from influence_cli.sittings.audit import audit as sit
    from influence_cli.sittings.sources import Sources

    flags = given({"environments": [name], "n": n or None, "turns": turns, "seed": seed, "default.model": model,
                   "default.options": backend_options(option), "default.options.base_url": base_url,
                   "budget.cost": max_cost, "budget.tokens": max_tokens})  # fmt: skip
    sources = Sources(flags, config or (), assignments or (), environments_dir or (), FLAGS)
    request = AuditRequest(name, n, states, concurrency, out, resume)
    found = sit(registry_of(ctx), sources, request, Talk())
    if json:
        output.emit_json(found.document())
    else:
        _show(found)
    code, told = found.ending(max_failed_share)
    if told:
        output.warn(told)
    if code != EXIT_DONE:
        raise typer.Exit(code)


def _show(audited: Audited) -> None:
    from rich.table import Table

    from influence_cli.environments.card import counted
    from influence_cli.simulation.audit import FAULTS, QUESTIONS, WORTH
    from influence_cli.sittings.audit import EXAMPLES

    found = audited.found
    output.emit_text(
        f"{audited.environment}, judged by {audited.judge}: {counted(found.states, 'initial state')}, "
        f"{counted(found.conversations, 'conversation')}"
    )
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("mean of 1..5", "states", "conversations"):
        table.add_column(heading)
    for question in QUESTIONS:
        values = [found.mean(what, question) for what in ("states", "conversations")]
        table.add_row(question, *("-" if value is None else f"{value:.2f}" for value in values))
    output.emit(table)
    if found.failed or found.unusable:
        failures = ", ".join(f"{count} x {kind}" for kind, count in found.failed.items()) or "none"
        output.warn(f"Judgements that failed: {failures}; unusable: {found.unusable}. They enter no figure.")
    for key, example in found.lowest().items():
        output.emit_text(f"  worst {key.replace('/', ', ')}: {example.where}: {output.plain(example.text)[:160]}")
    if audited.run is None:
        output.emit_text(f"\n{WORTH}")
        return
    output.emit_text(f"\nFaults of the simulated user in {found.user_messages} messages:")
    for name, examples in found.faults.items():
        of = found.chances(name)
        share = f"{len(examples) / of:.0%}" if of else "-"
        output.emit_text(f"  {name.replace('_', ' ')} ({FAULTS[name]}): {len(examples)} of {of} ({share})")
        for example in examples[:EXAMPLES]:
            output.emit_text(f"    {example.where}: {output.plain(example.text)[:160]}")
    output.emit_text(f"\n{WORTH}\nThe conversations: influence runs show {audited.run}")
