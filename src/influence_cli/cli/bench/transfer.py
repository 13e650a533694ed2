"""``influence bench transfer``: what training in one environment does in another."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from influence_cli.cli import output
from influence_cli.cli.bench.options import DryRun, Json, Quiet
from influence_cli.cli.context import registry_of
from influence_cli.cli.listening import Talk
from influence_cli.cli.options import AnySeed
from influence_cli.errors import EXIT_DONE


def transfer(
    ctx: typer.Context,
    run: Annotated[list[str], typer.Argument(help="Training runs: directories, names, or latest.")],
    env: Annotated[
        list[str] | None, typer.Option("--env", "-e", help="Environment to measure in; else those trained in.")
    ] = None,
    n: Annotated[
        int | None, typer.Option("--n", "-n", min=1, help="Conversations of a cell; else all held-out.")
    ] = None,
    samples: Annotated[int, typer.Option("--samples", min=1, help="From each held-out initial state.")] = 1,
    turns: Annotated[int | None, typer.Option("--turns", min=1, help="Most agent replies.")] = None,
    measure: Annotated[
        list[str] | None, typer.Option("--measure", help="Of reward, mean-veto, vetoed, ...; repeatable.")
    ] = None,
    seed: AnySeed = 0,
    out: Annotated[Path, typer.Option("--out", help="Folder of the cells and results.")] = Path("bench/transfer"),
    dry_run: DryRun = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure trained agents on held-out people of each environment, beside the untrained agent.

    Each cell is a run of its own under --out; the same command after a stop goes on where it was. Users and judges of all
    cells are those of the first run.
    """
    from influence_cli.benchmarking.cells import Wanted, estimated, plan, results, simulate_cells

    output.set_quiet(quiet)
    wanted = Wanted(tuple(env or ()), n, samples, turns, seed, out)
    planned = plan(registry_of(ctx), run, wanted, output.warn)
    if dry_run:
        _show_estimate(estimated(registry_of(ctx), planned), as_json=json)
        return
    code = simulate_cells(registry_of(ctx), planned, Talk())
    document = results(registry_of(ctx), planned, measure or ["reward", "mean-veto"], output.warn)
    if json:
        output.emit_json(document)
    else:
        _show(document)
    if code != EXIT_DONE:
        raise typer.Exit(code)


def _show_estimate(document: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        output.emit_json(document)
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("agent", "environment"):
        table.add_column(heading, overflow="fold")
    for heading in ("conversations", "calls", "tokens"):
        table.add_column(heading, justify="right")
    for row in document["cells"]:
        figures = (f"{row[name]:,}" for name in ("conversations", "calls", "tokens"))
        table.add_row(output.plain(row["agent"]), output.plain(row["environment"]), *figures)
    output.emit(table)
    output.emit_text(f"At most {document['calls']:,} calls, {document['tokens']:,} tokens. Nothing was done.")


def _show(document: dict[str, Any]) -> None:
    from rich.table import Table
    from rich.text import Text

    environments = document["environments"]
    for measure in document["measures"]:
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column(measure, overflow="fold")
        for name in environments:
            table.add_column(output.plain(name), justify="right")
        for agent in dict.fromkeys(row["agent"] for row in document["cells"]):
            rows = [r for r in document["cells"] if (r["agent"], r["measure"]) == (agent, measure)]
            by_name = {row["environment"]: row for row in rows}
            table.add_row(output.plain(agent), *(_cell(by_name.get(name)) for name in environments))
        output.emit(table)
        output.emit(Text())
    output.say("In brackets: the difference from the untrained agent there, with its 95 % interval; * trained there.")


def _cell(row: dict[str, Any] | None) -> str:
    if row is None or row["value"] is None:
        return "-"
    star = "*" if row["own"] else ""
    change = row["change"]
    if change is None:
        return f"{row['value']:.2f}{star}"
    limits = "" if change["low"] is None else f", {change['low']:+.2f} to {change['high']:+.2f}"
    return f"{row['value']:.2f}{star} ({change['value']:+.2f}{limits})"
