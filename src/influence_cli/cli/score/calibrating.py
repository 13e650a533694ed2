"""``influence score calibrate``: judges against people, and against each other."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from influence_cli.cli import output
from influence_cli.cli.options import AsJson


def calibrate(
    run: Annotated[str, typer.Argument(help="A run's directory, its name, or latest.")],
    labels: Annotated[
        Path,
        typer.Option("--labels", help="CSV: episode (or scenario, initial_state), turn, rubric, label, annotator."),
    ],
    shown: Annotated[int, typer.Option("--show", min=0, help="Largest differences to show.")] = 10,
    seed: Annotated[int, typer.Option(help="Of the bootstrap.")] = 0,
    json: AsJson = False,
) -> None:
    """Say how far the judges of a run agree with people's labels, and with each other."""
    from influence_cli.scoring.calibration import calibration
    from influence_cli.scoring.labels import read_labels
    from influence_cli.sittings.opening import run_to_read
    from influence_cli.store.reader import RunReader

    directory = run_to_read(run, output.warn)
    with RunReader(directory) as reader:
        query = "SELECT id, iteration, environment, scenario, initial_state, sample FROM episode"
        read = read_labels(labels, reader.rows(query))
        found = calibration(reader, read, shown=shown, seed=seed)
    people = len({label.annotator for label in read})
    if json:
        facts = {"run": str(directory.path), "labels": len(read), "annotators": people}
        output.emit_json({"schema": "influence.score.calibrate/1", **facts, **found})
    else:
        _show(found, len(read), people)


def _show(found: dict[str, Any], labels: int, people: int) -> None:
    from influence_cli.cli.score.showing import agreement_table

    output.emit_text(f"{labels:,} labels of {people:,} {'person' if people == 1 else 'people'}.")
    if found["agreement"]:
        output.emit(agreement_table(found["agreement"]))
        for entry in found["agreement"]:
            if entry["a"]["kind"] == "judge" and entry["b"]["kind"] == "people":
                _show_confusion(entry)
    if found["largest_differences"]:
        output.emit_text("\nLargest differences to people")
        output.emit(_differences(found["largest_differences"]))
    for rubric, count in found["unmatched"].items():
        output.warn(f"{count:,} labels of {rubric} are of what no judge has rated.")
    for rubric, count in found["skipped"].items():
        output.warn(f"{count:,} labels of {rubric} are none of its answers and were left out.")


def _show_confusion(entry: dict[str, Any]) -> None:
    """Show judge by people, a line for each answer, with the base rates of both."""
    from rich.table import Table

    answers = [f"{answer:g}" for answer in entry["answers"]]
    output.emit_text(f"\n{entry['rubric']}: {entry['a']['name']} (down) by people (across); base rates last")
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("", *answers, "share"):
        table.add_column(heading, justify="right")
    for answer, counts, share in zip(answers, entry["confusion"], entry["base_rates"]["a"], strict=True):
        table.add_row(answer, *(str(count) if count else "." for count in counts), f"{share:.0%}")
    table.add_row("share", *(f"{share:.0%}" for share in entry["base_rates"]["b"]), "")
    output.emit(table)


def _differences(entries: list[dict[str, Any]]) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("episode", "conversation", "turn", "rubric", "judge"):
        table.add_column(heading, overflow="fold")
    for heading in ("judged", "people"):
        table.add_column(heading, justify="right")
    for entry in entries:
        where = f"{entry['environment']}/{entry['scenario']}/{entry['initial_state']} #{entry['sample']}"
        names = (
            output.plain(where),
            str(entry["turn"] or "all"),
            output.plain(entry["rubric"]),
            output.plain(entry["judge"]),
        )
        table.add_row(str(entry["episode"]), *names, f"{entry['judged']:.2f}", f"{entry['people']:.2f}")
    return table
