"""A sweep: its trials, which parameters matter, and the best of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.widgets import Footer

from influence_cli.errors import InfluenceError
from influence_cli.viewer import formats
from influence_cli.viewer.cells import shown
from influence_cli.viewer.events import TroubleMet
from influence_cli.viewer.screens.listing import ViewerScreen
from influence_cli.viewer.sweep_lines import reading_text, sweep_lines, value_text
from influence_cli.viewer.widgets.lines import LinesView
from influence_cli.viewer.widgets.title_bar import TitleBar, state_sign
from influence_cli.viewer.widgets.virtual_table import Column, VirtualTable, column_cells
from influence_cli.viewer.workers import run_beside

SweepOf = Callable[[], dict[str, Any]]
"""Returns the object ``influence.sweep.show/1`` as it is now; raises InfluenceError."""

_SECONDS = 2.0
_VALUE = 26
_PRUNED = "\u2298 pruned"


@dataclass
class SweepRead(Message):
    """What the sweep comes to now."""

    document: dict[str, Any]


class SweepScreen(ViewerScreen):
    """Trials above, what matters below. Read again every two seconds while it runs."""

    HELP_TITLE = "Sweep"
    DEFAULT_CSS = """
    SweepScreen LinesView { border-top: solid $panel; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("s", "sort", "Sort", show=True),
        Binding("b", "best", "Best", show=True),
        Binding("tab", "app.focus_next", "Other half", show=False),
        Binding("r", "read", "Read again", show=False),
    ]

    def __init__(self, sweep_of: SweepOf) -> None:
        super().__init__()
        self._sweep_of = sweep_of
        self.document: dict[str, Any] | None = None
        self.rows: list[Mapping[str, Any]] = []
        self.by_value = False

    def compose(self) -> ComposeResult:
        """Return title, trials, figures and keys."""
        yield TitleBar()
        yield VirtualTable(empty="No trial has begun.", id="trials")
        yield LinesView(id="figures")
        yield Footer(compact=True, show_command_palette=False)

    def on_mount(self) -> None:
        """Begin to read."""
        self.query_one(TitleBar).text = "influence \u2022 sweep"
        self.query_one(VirtualTable).focus()
        self.action_read()
        self.set_interval(_SECONDS, self._read_live)

    def _read_live(self) -> None:
        if self.is_current and (self.document is None or self.document["state"] == "running"):
            self.action_read()

    def action_read(self) -> None:
        """Read the sweep again."""
        run_beside(self, self._read, group="read", exclusive=True)

    async def _read(self) -> None:
        try:
            document = await asyncio.to_thread(self._sweep_of)
        except InfluenceError as error:
            self.post_message(TroubleMet(str(error)))
        else:
            self.post_message(SweepRead(document))

    def on_sweep_read(self, message: SweepRead) -> None:
        """Show the trials and the figures; the cursor stays where it is."""
        first = self.document is None
        self.document = document = message.document
        bar = self.query_one(TitleBar)
        counts = document["counts"]
        bar.text = f"{document['sweep']} \u2022 sweep"
        told = [f"{counts[s]} {s}" for s in ("done", "pruned", "failed", "running") if counts[s]]
        bar.note = ", ".join(told) + (f" of {counts['wanted']}" if counts["wanted"] else "")
        bar.state = document["state"]
        if first:
            self.query_one(VirtualTable).set_columns(columns_of(document))
        self._arrange()
        self.query_one(LinesView).show(lambda cells: sweep_lines(document, cells), keep=not first)

    def _arrange(self) -> None:
        assert self.document is not None
        trials = list(self.document["trials"])
        if self.by_value:
            sign = -1.0 if self.document["objectives"][0]["direction"] == "maximize" else 1.0
            trials.sort(key=lambda each: sign * each["values"][0]["value"] if each["values"] else float("inf"))
        self.rows = trials
        self.query_one(VirtualTable).renew(len(trials))

    def on_virtual_table_rows_wanted(self, message: VirtualTable.RowsWanted) -> None:
        """Hand out rows."""
        wanted = self.rows[message.first : message.first + message.count]
        assert self.document is not None
        names = [each["name"] for each in self.document["objectives"]]
        message.table.put(message.first, [_cells(trial, names) for trial in wanted], message.generation)

    def on_virtual_table_opened(self, message: VirtualTable.Opened) -> None:
        """Open the run of the trial, its first one where it has several."""
        if message.row < len(self.rows):
            path = Path(self.rows[message.row]["runs"][0])
            if path.is_dir():
                self.viewer.open_run(path)
            else:
                self.tell("This trial's run has not begun.")

    def action_sort(self) -> None:
        """Sort by number, or by the first objective, the best first."""
        if self.document is not None:
            self.by_value = not self.by_value
            self._arrange()
            self.query_one(VirtualTable).cursor = 0

    def action_best(self) -> None:
        """Go to the best trial by the first objective."""
        best = None if self.document is None else self.document["best"]
        row = next((index for index, trial in enumerate(self.rows) if trial["number"] == best), None)
        if row is None:
            self.tell("No trial is done yet.")
        else:
            self.query_one(VirtualTable).cursor = row


def columns_of(document: Mapping[str, Any]) -> list[Column]:
    """Return the columns: trial, state, parameters, objectives, tokens."""
    found = [Column("number", "trial", 7, right=True), Column("state", "state", 10)]
    for each in document["space"]:
        title = shown(each["name"], newlines=False)
        found.append(Column(f"p:{title}", title, column_cells(title, 10), right=True))
    for each in document["objectives"]:
        title = f"{each['name']} (95 %)"
        found.append(Column(each["name"], title, column_cells(title, _VALUE), right=True))
    return [*found, Column("tokens", "tokens", 10, right=True), Column("reason", "reason", 40)]


def _cells(trial: Mapping[str, Any], objectives: list[str]) -> tuple[str, ...]:
    mark = "\u25cf " if trial["pareto"] else ""
    state = _PRUNED if trial["state"] == "pruned" else state_sign(trial["state"])
    values = [reading_text(each) for each in trial["values"]] or [formats.NONE] * len(objectives)
    return (
        f"{mark}{trial['number']}",
        state,
        *(value_text(value) for value in trial["parameters"].values()),
        *values,
        formats.count(trial["tokens"]),
        shown(trial["reason"] or "", newlines=False),
    )
