"""Two runs, or two iterations of one: the same conversations side by side, sorted by what changed."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.widgets import Footer, Static

from influence_cli.errors import InfluenceError
from influence_cli.scoring.statistics import Interval, Sample, mean_interval
from influence_cli.store.conversation import StoredConversation, read_conversation
from influence_cli.store.pairs import MEASURES, Measure, PairReader, Pairs, Side, iterations_of
from influence_cli.store.reader import RunReader
from influence_cli.viewer import formats
from influence_cli.viewer.cells import clipped, shown
from influence_cli.viewer.charts import bar
from influence_cli.viewer.comparing import side_by_side
from influence_cli.viewer.events import TroubleMet
from influence_cli.viewer.screens.listing import ViewerScreen
from influence_cli.viewer.source import RunSource
from influence_cli.viewer.widgets.lines import LinesView
from influence_cli.viewer.widgets.title_bar import TitleBar
from influence_cli.viewer.widgets.virtual_table import Column, VirtualTable
from influence_cli.viewer.workers import run_beside

_LEAST_NAME, _BESIDE_NAMES = 12, 26
"""Cells of a run's name in the title, and of all that stands beside both."""
_COLUMNS = (
    Column("scenario", "scenario", 22),
    Column("state", "initial state", 20),
    Column("change", "change", 9, right=True),
    Column("size", "", 12),
)


@dataclass
class PairsRead(Message):
    """The pairs, and what the change comes to."""

    pairs: Pairs
    interval: Interval | None
    counts: tuple[int, int]


class CompareScreen(ViewerScreen):
    """Pairs of conversations, the largest loss first."""

    HELP_TITLE = "Compare"
    DEFAULT_CSS = """
    CompareScreen #summary { height: auto; max-height: 3; padding: 0 1; background: $surface; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("m", "measure", "Measure", show=True),
        Binding("s", "reverse", "Other end first", show=True),
        Binding("1", "iteration(0, -1)", "Left: iteration before", show=False),
        Binding("2", "iteration(0, 1)", "Left: iteration after", show=False),
        Binding("3", "iteration(1, -1)", "Right: iteration before", show=False),
        Binding("4", "iteration(1, 1)", "Right: iteration after", show=False),
    ]

    def __init__(self, left: RunSource, right: RunSource) -> None:
        super().__init__()
        self.sources = (left, right)
        self.numbers: list[list[int]] = [[], []]
        self.at = [0, 0]
        self.measure: Measure = "rating"
        self.descending = False
        self.pairs: Pairs | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="viewer-compare")
        self._reader: tuple[tuple[Side, Side], RunReader, PairReader] | None = None

    def compose(self) -> ComposeResult:
        """Return title, summary, table and keys."""
        yield TitleBar()
        yield Static(id="summary", markup=False)
        yield VirtualTable(empty="No conversation is on both sides.", id="pairs")
        yield Footer(compact=True, show_command_palette=False)

    def on_mount(self) -> None:
        """Find the iterations, then the pairs."""
        table = self.query_one(VirtualTable)
        table.set_columns(_COLUMNS)
        table.focus()
        self.query_one(TitleBar).text = "compare"
        run_beside(self, self._begin, group="pairs", exclusive=True)

    @property
    def sides(self) -> tuple[Side, Side]:
        """What is compared."""
        return (self._side(0), self._side(1))

    def _side(self, number: int) -> Side:
        iterations = self.numbers[number]
        several = len(iterations) > 1 or self.sources[0] is self.sources[1]
        iteration = iterations[self.at[number]] if several and iterations else None
        return Side(self.sources[number].directory, iteration)

    # -- workers ------------------------------------------------------------------------------------------------------

    async def _begin(self) -> None:
        try:
            self.numbers = [await source.slow.ask(lambda table: iterations_of(table.run)) for source in self.sources]
        except InfluenceError as error:
            self.post_message(TroubleMet(str(error)))
            return
        self.at = [0, max(0, len(self.numbers[1]) - 1)]
        await self._read()

    async def _read(self) -> None:
        sides, measure, descending = self.sides, self.measure, self.descending
        loop = asyncio.get_running_loop()
        try:
            found = await loop.run_in_executor(self._thread, self._pairs, sides, measure, descending)
        except InfluenceError as error:
            self.post_message(TroubleMet(str(error)))
        else:
            self.post_message(found)

    def _pairs(self, sides: tuple[Side, Side], measure: Measure, descending: bool) -> PairsRead:
        if self._reader is None or self._reader[0] != sides:
            self._close_reader()
            run = RunReader(sides[0].directory)
            try:
                self._reader = (sides, run, PairReader(run, *sides))
            except InfluenceError:
                run.close()
                raise
        reader = self._reader[2]
        pairs = reader.pairs(measure, descending=descending)
        interval = None
        if pairs.changes:
            values = np.frombuffer(pairs.changes, dtype=np.float64)
            interval = mean_interval(Sample.named(values, pairs.scenarios, pairs.states))
        return PairsRead(pairs, interval, reader.unpaired())

    def _close_reader(self) -> None:
        if self._reader is not None:
            self._reader[1].close()
            self._reader = None

    def on_unmount(self) -> None:
        """Close the connection on its own thread."""
        self._thread.submit(self._close_reader)
        self._thread.shutdown(wait=False)

    # -- handlers -----------------------------------------------------------------------------------------------------

    def on_pairs_read(self, message: PairsRead) -> None:
        """Show the pairs and what they come to."""
        self.pairs = message.pairs
        left, right = self.sides
        bar_ = self.query_one(TitleBar)
        room = max(_LEAST_NAME, (self.size.width - _BESIDE_NAMES) // 2)
        first, second = (clipped(shown(each.name, newlines=False), room, end=True)[0] for each in (left, right))
        bar_.text = f"compare {first} \u2192 {second}"
        n = len(message.pairs.changes)
        bar_.note = f"{n:,} pairs"
        self.query_one("#summary", Static).update(shown(_summary(message, self.measure)))
        self.query_one(VirtualTable).set_rows(n)

    def on_virtual_table_rows_wanted(self, message: VirtualTable.RowsWanted) -> None:
        """Hand out rows."""
        if self.pairs is not None:
            pairs = self.pairs
            most = max(map(abs, (pairs.changes[0], pairs.changes[-1])), default=1.0) or 1.0
            last = min(len(pairs.changes), message.first + message.count)
            rows = [_cells(pairs, number, most) for number in range(message.first, last)]
            message.table.put(message.first, rows, message.generation)

    def on_virtual_table_opened(self, message: VirtualTable.Opened) -> None:
        """Show a pair side by side."""
        assert self.pairs is not None
        left, right = self.sides
        self.app.push_screen(PairScreen(self.sources, (left.name, right.name), self.pairs, message.row))

    def action_measure(self) -> None:
        """Compare another measure."""
        names = list(MEASURES)
        self.measure = names[(names.index(self.measure) + 1) % len(names)]
        run_beside(self, self._read, group="pairs", exclusive=True)

    def action_reverse(self) -> None:
        """Sort the other way round."""
        self.descending = not self.descending
        run_beside(self, self._read, group="pairs", exclusive=True)

    def action_iteration(self, side: int, by: int) -> None:
        """Take another iteration for one side."""
        numbers = self.numbers[side]
        if numbers:
            self.at[side] = max(0, min(self.at[side] + by, len(numbers) - 1))
            run_beside(self, self._read, group="pairs", exclusive=True)


def _cells(pairs: Pairs, number: int, most: float) -> tuple[str, ...]:
    change = pairs.changes[number]
    sign = "\u2212" if change < 0 else "+" if change > 0 else " "
    return (
        shown(pairs.scenarios[number], newlines=False),
        shown(pairs.states[number], newlines=False),
        f"{change:+.2f}",
        f"{sign}{bar(abs(change) / most, 11)}",
    )


def _summary(message: PairsRead, measure: str) -> str:
    left, right = message.counts
    counts = f"{left:,} and {right:,} conversations, {len(message.pairs.changes):,} on both sides"
    if not message.pairs.by_sample:
        counts += " (paired by initial state alone)"
    interval = message.interval
    if interval is None:
        return f"{measure}: no pair has it on both sides. {counts}."
    ends = f"[{formats.number(interval.low)}, {formats.number(interval.high)}]"
    over = f"over {interval.units:,} {interval.over}"
    return f"Mean change of {measure}: {interval.value:+.3f}, 95 % interval {ends} {over}.\n{counts}."


class PairScreen(ViewerScreen):
    """One conversation twice."""

    HELP_TITLE = "Side by side"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("n", "other(1)", "Next", show=True),
        Binding("p", "other(-1)", "Previous", show=True),
    ]

    @dataclass
    class Read(Message):
        """Both conversations were read."""

        left: StoredConversation
        right: StoredConversation

    def __init__(self, sources: tuple[RunSource, RunSource], names: tuple[str, str], pairs: Pairs, row: int) -> None:
        super().__init__()
        self.sources = sources
        self.names = names
        self.pairs = pairs
        self.row = row

    def compose(self) -> ComposeResult:
        """Return title and text."""
        yield TitleBar()
        yield LinesView()
        yield Footer(compact=True, show_command_palette=False)

    def on_mount(self) -> None:
        """Read both."""
        self.query_one(LinesView).focus()
        self.action_other(0)

    def action_other(self, by: int) -> None:
        """Go to the next or previous pair."""
        self.row = max(0, min(self.row + by, len(self.pairs.changes) - 1))
        run_beside(self, self._read, self.row, group="read", exclusive=True)

    async def _read(self, row: int) -> None:
        left, right = self.pairs.left[row], self.pairs.right[row]
        try:
            one = await self.sources[0].quick.ask(lambda table: read_conversation(table.run, left))
            other = await self.sources[1].quick.ask(lambda table: read_conversation(table.run, right))
        except InfluenceError as error:
            self.post_message(TroubleMet(str(error)))
        else:
            self.post_message(self.Read(one, other))

    def on_pair_screen_read(self, message: Read) -> None:
        """Show both."""
        bar_ = self.query_one(TitleBar)
        bar_.text = f"{message.left.title} \u2022 {self.row + 1:,} of {len(self.pairs.changes):,}"
        bar_.note = f"change {self.pairs.changes[self.row]:+.2f}"
        self.query_one(LinesView).show(lambda cells: side_by_side(message.left, message.right, self.names, cells))
