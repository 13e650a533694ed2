"""What benchmarks show: what they would take, their measures, and how many calls failed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from influence_cli.cli import output
from influence_cli.errors import EXIT_DONE, EXIT_FAILURES

if TYPE_CHECKING:
    from influence_cli.benchmarking.bench import Bench

_ALLOWED = 0.1
"""Share of calls that may fail before exit code 1."""


def finish(bench: Bench, document: dict[str, Any], *, as_json: bool, show: Callable[[dict[str, Any]], None]) -> int:
    """Write the results into the folder, show them, and return the exit code."""
    from influence_cli.benchmarking.bench import RESULTS, finished

    whole = finished(bench, document)
    if as_json:
        output.emit_json(whole)
    else:
        show(whole)
        output.say(f"{bench.folder / RESULTS}")
    return _exit_code(whole["calls"])


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
