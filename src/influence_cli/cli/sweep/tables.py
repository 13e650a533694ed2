"""How a sweep looks: its trials, what matters, its Pareto front, and what it will take."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from influence_cli.cli import output
from influence_cli.cli.costs import cost_text
from influence_cli.sittings.lines import number
from influence_cli.sweeps.figures import space_text

if TYPE_CHECKING:
    from rich.console import RenderableType

_SHOWN = 24
_BAR = 30


def sweep_parts(document: Mapping[str, Any]) -> Iterator[RenderableType]:
    """Yield what there is to see of a sweep: heading, trials, importance, Pareto front."""
    from rich.text import Text

    yield Text(heading(document))
    yield Text()
    yield _trials(document)
    for objective in document["objectives"]:
        yield from _importance(document, objective)
    yield Text()
    yield Text(verdict(document))


def heading(document: Mapping[str, Any]) -> str:
    """Return the sweep in two lines: how it is, and what is searched for what."""
    counts = document["counts"]
    told = [f"{counts['done']} done", *(f"{counts[s]} {s}" for s in ("pruned", "failed", "running") if counts[s])]
    of = f" of {counts['wanted']} trials" if counts["wanted"] else ""
    cost = "" if not document["cost"] else f", ${document['cost']:,.2f}"
    aims = ", ".join(f"{each['title']} ({each['direction']})" for each in document["objectives"])
    return output.plain(
        f"{document['sweep']} ({document['state']}): {', '.join(told)}{of}; {document['searcher']}; "
        f"{document['tokens']:,} tokens{cost}. Objectives: {aims}."
    )


def _trials(document: Mapping[str, Any]) -> RenderableType:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, collapse_padding=True, header_style="bold")
    names = [each["name"] for each in document["space"]]
    table.add_column("trial", justify="right")
    table.add_column("state", no_wrap=True)
    for name in names:
        table.add_column(output.plain(name), justify="right", max_width=_SHOWN, overflow="fold")
    for objective in document["objectives"]:
        table.add_column(f"{objective['name']} (95 %)", justify="right")
    table.add_column("s", justify="right")
    for trial in document["trials"]:
        marks = f"{trial['number']}{'*' if trial['pareto'] else ''}"
        values = [with_interval(each) for each in trial["values"]] or [""] * len(document["objectives"])
        if trial["reason"]:
            values[0] = output.plain(trial["reason"])
        own = [number(trial["parameters"][name]) for name in names]
        table.add_row(marks, trial["state"], *own, *values, number(trial["seconds"]) if trial["seconds"] else "")
    return table


def with_interval(reading: Mapping[str, Any]) -> str:
    """Return a reading with its interval, where one is known."""
    low, high = reading["low"], reading["high"]
    return number(reading["value"]) + ("" if low is None else f" ({number(low)} to {number(high)})")


def _importance(document: Mapping[str, Any], objective: Mapping[str, Any]) -> Iterator[RenderableType]:
    from rich.table import Table
    from rich.text import Text

    measured = document["importance"]
    shares = measured["by_objective"][objective["name"]]
    hint = ", few trials: a hint" if measured["few"] else ""
    told = f"Importance for {objective['name']} ({measured['method']}, {measured['trials']} trials{hint})"
    yield Text(f"\n{told}" if shares else f"\n{told}: nothing can be told", style="bold")
    grid = Table.grid(padding=(0, 1))
    for each in shares:
        grid.add_row(output.plain(each["parameter"]), f"{each['share']:.0%}", "\u2588" * round(each["share"] * _BAR))
    if shares:
        yield grid


def verdict(document: Mapping[str, Any]) -> str:
    """Return which trials are best, and what that is worth."""
    if document["best"] is None:
        return "No trial is done."
    done = document["counts"]["done"]
    if len(document["objectives"]) > 1:
        front = ", ".join(map(str, document["pareto"]))
        return f"* Pareto front, beaten by no other trial in everything: {front}."
    return (
        f"Best: trial {document['best']}, of {done}; the best of several is better than it will be again: "
        "have it once more with other seeds."
    )


def estimate_parts(document: Mapping[str, Any]) -> Iterator[RenderableType]:
    """Yield what a sweep will take, for people."""
    from rich.table import Table
    from rich.text import Text

    names = [each["name"] for each in document["space"]]
    space = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("searched", "setting", "space"):
        space.add_column(name, overflow="fold")
    for each in document["space"]:
        shown = (each["name"], each["setting"], space_text(each["space"]))
        space.add_row(*(output.plain(text) for text in shown))
    yield space
    rows: Sequence[Mapping[str, Any]] = document["reckoned"]
    if document["known"]:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for name in ("trial", *names, "conversations", "calls", "tokens"):
            table.add_column(output.plain(name), justify="right", overflow="fold")
        for index, row in enumerate(rows):
            figures = (f"{row[name]:,}" for name in ("conversations", "calls", "tokens"))
            table.add_row(str(index), *(number(row["parameters"][name]) for name in names), *figures)
        yield Text()
        yield table
    cost = cost_text(document["cost"])
    how = (
        "" if document["known"] and len(rows) == document["trials"] else f", reckoned from {len(rows)} draws at random"
    )
    yield Text(
        f"\n{document['trials']:,} trials, {document['runs']:,} runs: at most about {document['conversations']:,} "
        f"conversations, {document['calls']:,} calls, {document['tokens']:,} tokens ({cost}){how}.\nNothing was done."
    )
