"""The columns of the table of trajectories: which, how wide, and what stands in a cell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from influence_cli.store.filter_sql import Field, field_of
from influence_cli.store.trajectory_table import Order
from influence_cli.viewer import formats
from influence_cli.viewer.cells import shown
from influence_cli.viewer.widgets.virtual_table import Column, column_cells

_FIRST = (
    "number",
    "scenario",
    "state",
    "population",
    "iteration",
    "rating",
    "veto",
    "length",
    "failures",
    "labels",
    "flag",
)
_LAST = ("final", "status", "reason", "split", "cue", "sample", "environment", "failure")
_CELLS = {
    "number": 7, "scenario": 16, "state": 18, "population": 11, "reason": 14, "environment": 14, "failure": 12, "status": 9,
    "split": 8, "cue": 9,
}  # fmt: skip


def fields_of(names: Sequence[str], *, blind: bool = False) -> list[Field]:
    """Return the fields that a table with these names shows, in order; ``blind`` leaves out what models said."""
    own = [name for name in names if name.startswith(("score.", "label."))]
    shown_names = [name for name in (*_FIRST, *own, *_LAST) if not (blind and is_judged(name))]
    return [field for name in shown_names if (field := field_of(name)) is not None]


def is_judged(name: str) -> bool:
    """Return whether a field tells what models thought of a conversation."""
    return name in ("rating", "final", "veto", "reason") or name.startswith("score.")


def columns_of(fields: Sequence[Field], order: Order) -> list[Column]:
    """Return a column for each field; the one that is sorted by has an arrow."""
    return [
        Column(
            name=field.name,
            title=shown(field.title, newlines=False),
            cells=column_cells(field.title, _CELLS.get(field.name, 6)),
            right=field.kind == "number",
            mark=("\u2193" if order.descending else "\u2191") if field.name == order.field else "",
        )
        for field in fields
    ]


def cells_of(row: Sequence[Any] | None, fields: Sequence[Field]) -> tuple[str, ...]:
    """Return the texts of a row; dots for one that is gone."""
    if row is None:
        return (formats.NONE,) * len(fields)
    return tuple(
        shown(formats.cell(value, field.name), newlines=False) for value, field in zip(row, fields, strict=True)
    )
