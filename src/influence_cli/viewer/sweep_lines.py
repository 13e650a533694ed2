"""A sweep as lines: importance as bars, the Pareto front, two objectives against each other. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from influence_cli.viewer import formats
from influence_cli.viewer.cells import fitted, shown
from influence_cli.viewer.charts import Point, axis, bar
from influence_cli.viewer.widgets.lines import Line, Lines, cut

Document = Mapping[str, Any]

_NAME, _SHARE, _WIDEST = 18, 6, 60
_PLOT_ROWS, _EDGE = 9, 10
_POINT, _FRONT = "\u00b7", "\u25cf"


def value_text(value: Any) -> str:
    """Return a parameter or a figure in few characters."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return shown(str(value), newlines=False)


def reading_text(reading: Mapping[str, Any]) -> str:
    """Return a figure with its interval, where one is known."""
    known = value_text(reading["value"])
    if reading["low"] is None or reading["high"] is None:
        return known
    return f"{known} [{value_text(reading['low'])}, {value_text(reading['high'])}]"


def sweep_lines(document: Document, cells: int) -> Lines:
    """Return what matters and what is best, ``cells`` wide."""
    lines: Lines = []
    for objective in document["objectives"]:
        lines += [*_importance(document, objective, cells), []]
    if len(document["objectives"]) > 1:
        lines += [*_plot(document, cells), []]
    lines += _best(document)
    if document["importance"]["few"]:
        told = f"Importance over {document['importance']['trials']} trials: few, so take it for a hint."
        lines += [[], [(told, "faint")]]
    return [cut(line, cells) for line in lines]


def _importance(document: Document, objective: Mapping[str, Any], cells: int) -> Lines:
    shares = document["importance"]["by_objective"][objective["name"]]
    title = f"importance for {objective['name']} ({document['importance']['method']})"
    lines: Lines = [[(shown(title, newlines=False), "heading")]]
    if not shares:
        return [*lines, [("  nothing can be told yet", "faint")]]
    room = min(_WIDEST, max(8, cells - _NAME - _SHARE - 1))
    for each in shares:
        name = fitted(shown(each["parameter"], newlines=False), _NAME)
        share = formats.share(each["share"]).rjust(_SHARE)
        lines.append([(name, "strong"), (bar(each["share"], room), "bar"), (share, "text")])
    return lines


def _best(document: Document) -> Lines:
    several = len(document["objectives"]) > 1
    lines: Lines = [[("Pareto front" if several else "best trial", "heading")]]
    wanted = document["pareto"] if several else [document["best"]]
    found = [trial for trial in document["trials"] if trial["number"] in wanted]
    if not found:
        return [*lines, [("  no trial is done yet", "faint")]]
    for trial in found:
        parameters = ", ".join(f"{name} {value_text(value)}" for name, value in trial["parameters"].items())
        values = "; ".join(f"{each['objective']} {reading_text(each)}" for each in trial["values"])
        first: Line = [(f"{_FRONT} {trial['number']:<4}", "chosen"), (shown(parameters, newlines=False), "text")]
        lines += [first, [("      ", "text"), (shown(values, newlines=False), "faint")]]
    return lines


def _plot(document: Document, cells: int) -> Lines:
    """Return the first two objectives against each other."""
    across, up = document["objectives"][:2]
    trials = [trial for trial in document["trials"] if trial["state"] == "done"]
    told = f"{up['name']} ({up['direction']}) against {across['name']} ({across['direction']}); {_FRONT} front"
    lines: Lines = [[(shown(told, newlines=False), "heading")]]
    if not trials:
        return lines
    left, right = _ends(trials, 0)
    low, high = _ends(trials, 1)
    room = min(_WIDEST, max(12, cells - _EDGE - 1))
    grid = [[" "] * room for _ in range(_PLOT_ROWS)]
    for trial in sorted(trials, key=lambda each: bool(each["pareto"])):
        x, y = (each["value"] for each in trial["values"][:2])
        column = round((x - left) / (right - left) * (room - 1))
        row = _PLOT_ROWS - 1 - round((y - low) / (high - low) * (_PLOT_ROWS - 1))
        grid[row][column] = _FRONT if trial["pareto"] else _POINT
    edges = {0: value_text(high), _PLOT_ROWS - 1: value_text(low)}
    for number, row in enumerate(grid):
        lines.append([(edges.get(number, "").rjust(_EDGE - 1) + "\u2502", "faint"), ("".join(row), "bar")])
    ends = value_text(left).ljust(room - _EDGE) + value_text(right).rjust(_EDGE)
    lines.append([(" " * _EDGE + ends, "faint")])
    return lines


def _ends(trials: Sequence[Mapping[str, Any]], index: int) -> tuple[float, float]:
    values = [trial["values"][index]["value"] for trial in trials]
    return axis([Point("", value, value, value) for value in values])
