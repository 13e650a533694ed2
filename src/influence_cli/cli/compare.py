"""``influence compare``: what differs between two runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from influence_cli.cli import output
from influence_cli.cli.context import registry_of
from influence_cli.cli.options import AsJson
from influence_cli.errors import InfluenceError

_NAME = 12
"""Characters of a name that stand on one line at least."""
_GAP = 2
Reference = Annotated[str, typer.Argument(help="A run's directory, its name, or latest; RUN@3 is its iteration 3.")]


def compare(
    ctx: typer.Context,
    first: Reference,
    second: Reference,
    most: Annotated[
        int, typer.Option("--most", min=0, help="How many of the most changed conversations to list.")
    ] = 10,
    json: AsJson = False,
    md: Annotated[bool, typer.Option("--md", help="As Markdown on stdout.")] = False,
) -> None:
    """Compare two runs, or two iterations of one: the second less the first, with intervals.

    Conversations from the same initial state are compared with each other where both runs share enough of them.
    """
    from influence_cli.report.catalogues import catalogue_of
    from influence_cli.report.comparison import comparison_document, side_of
    from influence_cli.report.markdown import comparison_markdown

    if json and md:
        raise InfluenceError("--json and --md exclude each other.")
    before, after = side_of(first, output.warn), side_of(second, output.warn)
    catalogue = catalogue_of(registry_of(ctx), [before.directory, after.directory], told=output.say)
    document = comparison_document(before, after, catalogue, most)
    if json:
        output.emit_json(document)
    elif md:
        output.emit_text(comparison_markdown(document))
    else:
        _show(document)


def _show(document: dict[str, Any]) -> None:
    from influence_cli.report.markdown import changed_table, difference_table, pairing

    first, second = document["sides"]
    output.say(
        f"{second['run']}, iteration {second['iteration']}, less {first['run']}, iteration {first['iteration']}."
    )
    output.say(pairing(document))
    _emit(difference_table(document), spare=("n to see it", "g"))
    changed = changed_table(document)
    if changed is not None:
        _emit(changed)


def _emit(table: dict[str, Any], spare: Sequence[str] = ()) -> None:
    """Show a table; where it is too wide to be read, without the columns that are ``spare``, and say so."""
    from rich.table import Table

    columns = list(range(len(table["head"])))
    left_out = []
    for name in spare:
        if _width(table, columns) > output.data_width():
            columns.remove(table["head"].index(name))
            left_out.append(name)
    shown = Table(box=None, pad_edge=False, header_style="bold", title=None)
    for index in columns:
        left = index < table["left"]
        shown.add_column(table["head"][index], justify="left" if left else "right", overflow="fold", no_wrap=not left)
    for row in table["rows"]:
        shown.add_row(*(output.plain(row[index]) for index in columns))
    output.emit(shown)
    if left_out:
        output.say(f"Left out, for the terminal is narrow: {', '.join(left_out)}. --md shows all.")


def _width(table: dict[str, Any], columns: Sequence[int]) -> int:
    """Return how wide a table has to be at least: names may be folded, figures may not."""
    longest = [max(len(row[index]) for row in (table["head"], *table["rows"])) for index in columns]
    widths = [min(size, _NAME) if index < table["left"] else size for index, size in zip(columns, longest, strict=True)]
    return sum(widths) + _GAP * (len(columns) - 1)
