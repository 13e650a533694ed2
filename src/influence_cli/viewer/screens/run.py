"""One run: its conversations as a table of any length, filtered, sorted, added up, followed while it grows."""

from __future__ import annotations

import asyncio
import time
from array import array
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.widgets import Footer

from influence_cli.errors import InfluenceError
from influence_cli.store.filter_language import Node, QueryError, words_of
from influence_cli.store.saved_views import SavedView
from influence_cli.store.steering import stop_run
from influence_cli.store.trajectory_table import Order, TrajectoryTable
from influence_cli.viewer.columns import cells_of, columns_of, fields_of, is_judged
from influence_cli.viewer.events import FacetsRead, FieldsRead, IndexGrew, NumbersRead, RowsRead, RunChanged, TroubleMet
from influence_cli.viewer.screens.listing import ViewerScreen
from influence_cli.viewer.screens.runs import toggle_pause
from influence_cli.viewer.source import RunSource
from influence_cli.viewer.watching import Watch
from influence_cli.viewer.widgets.facet_panel import FacetPanel
from influence_cli.viewer.widgets.query_bar import QueryBar, toggled
from influence_cli.viewer.widgets.title_bar import TitleBar
from influence_cli.viewer.widgets.virtual_table import VirtualTable
from influence_cli.viewer.workers import run_beside

_FACETS = ("population", "scenario", "iteration", "status", "reason", "split", "environment", "cue")
_HISTOGRAMS = ("rating", "veto")
_LIVE_SECONDS = 1.0
_AFTER_PAINT = 0.3
"""Seconds that what adds up over a whole run leaves to the first rows."""
_AGAIN_SECONDS = 3.0
"""Between two answers to a filtered query about a run that grows."""


class RunScreen(ViewerScreen):
    """The conversations of a run."""

    HELP_TITLE = "Run"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (110, "-wide")]  # noqa: RUF012 - Textual's own annotation
    DEFAULT_CSS = """
    RunScreen #body { height: 1fr; }
    RunScreen FacetPanel { display: none; }
    RunScreen.-wide FacetPanel { display: block; }
    RunScreen.-facets FacetPanel { display: block; }
    RunScreen.-wide.-facets FacetPanel { display: none; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "filter", "Filter", show=True, key_display="/"),
        Binding("s", "sort", "Sort", show=True),
        Binding("w", "worst", "Worst", show=True),
        Binding("f", "facets", "Facets", show=True),
        Binding("i", "charts", "Charts", show=True),
        Binding("v", "views", "Views", show=True),
        Binding("V", "save_view", "Save this view", show=False),
        Binding("c", "compare", "Compare iterations", show=False),
        Binding("x", "clear", "Show everything", show=False),
        Binding("P", "pause", "Pause the run, or let it go on", show=False),
        Binding("S", "stop", "Stop the run", show=False),
    ]

    def __init__(self, source: RunSource, *, query: str = "", conversation: int | None = None) -> None:
        super().__init__()
        self.source = source
        self.order = Order()
        self.node: Node | None = None
        self.numbers: array[int] = array("q")
        self.names: list[str] = []
        self.fields = fields_of(())
        self.state = ""
        self._query = query
        self._first = conversation
        self._watch = Watch(source)
        self._asked_at = 0.0
        self._behind = False

    def compose(self) -> ComposeResult:
        """Return title, query, table, facets and keys."""
        yield TitleBar()
        yield QueryBar(self._query)
        with Horizontal(id="body"):
            yield VirtualTable(empty="No conversation matches. x shows everything.", id="trajectories")
            yield FacetPanel()
        yield Footer(compact=True, show_command_palette=False)

    def on_mount(self) -> None:
        """Read the run."""
        self.query_one(TitleBar).text = f"{self.source.name} \u2022 conversations"
        self.fields = fields_of((), blind=self.viewer.blind)
        self.query_one(VirtualTable).set_columns(columns_of(self.fields, self.order))
        self.query_one(VirtualTable).focus()
        run_beside(self, self._read_fields, group="fields")
        if self._query:
            self._answer(self._query)
        else:
            self._ask()
        run_beside(self, self._index, after=_AFTER_PAINT, group="index")
        self.set_interval(_LIVE_SECONDS, self._look)
        if self._first is not None:
            self.viewer.show_conversation(self, self._first)

    def query_words(self) -> list[str]:
        """Return the words that the query looks for, to be marked in conversations."""
        return words_of(self.node)

    # -- workers: they read and post, and touch nothing ---------------------------------------------------------------

    async def _read_fields(self) -> None:
        try:
            await self._watch.look()
            names = await self.source.quick.ask(TrajectoryTable.names)
            state = await self.source.quick.ask(lambda table: table.run.state())
        except InfluenceError as error:
            self.post_message(TroubleMet(str(error)))
        else:
            self.post_message(FieldsRead(names, state))

    async def _read_numbers(self, node: Node | None, order: Order, keep: bool) -> None:
        started = time.perf_counter()
        try:
            numbers = await self.source.quick.ask(lambda table: table.numbers(node, order))
        except InfluenceError as error:
            self.post_message(TroubleMet(str(error)))
        else:
            self.post_message(NumbersRead(numbers, time.perf_counter() - started, keep))

    async def _read_rows(self, first: int, numbers: list[int], generation: int) -> None:
        fields = self.fields
        try:
            found = await self.source.quick.ask(lambda table: table.rows(numbers, fields))
        except InfluenceError as error:
            self.post_message(TroubleMet(str(error)))
        else:
            rows = [cells_of(found.get(number), fields) for number in numbers]
            self.post_message(RowsRead(first, rows, generation))

    async def _read_facets(self, node: Node | None, *, after: float = 0.0) -> None:
        await asyncio.sleep(after)
        read = FacetsRead()
        ask = self.source.slow.ask
        try:
            read.summary = dict(await ask(lambda table: table.summary(node)))
            for name in () if self.viewer.blind else _HISTOGRAMS:
                histogram = await ask(lambda table, name=name: table.histogram(name, node))  # type: ignore[misc]
                if histogram is not None:
                    read.histograms[name] = histogram
            self.post_message(FacetsRead(read.summary, {}, dict(read.histograms)))
            for name in _FACETS:
                read.facets[name] = await ask(lambda table, name=name: table.facet(name, node))  # type: ignore[misc]
        except InfluenceError as error:
            self.post_message(TroubleMet(str(error)))
        else:
            self.post_message(read)

    def _tell_index(self, share: float) -> None:
        self.post_message(IndexGrew(share))

    async def _index(self, *, after: float = 0.0) -> None:
        await asyncio.sleep(after)
        try:
            await self.source.index(self._tell_index)
        except InfluenceError as error:
            self.post_message(TroubleMet(f"Full text cannot be searched: {error}"))
        else:
            self.post_message(IndexGrew(1.0))

    async def _changed(self) -> None:
        try:
            changed = await self._watch.look()
        except InfluenceError as error:
            self.post_message(TroubleMet(str(error)))
        else:
            if changed is not None:
                self.post_message(changed)

    # -- handlers -----------------------------------------------------------------------------------------------------

    def on_fields_read(self, message: FieldsRead) -> None:
        """Show a column for every field."""
        self.names = message.names
        self.state = message.state
        self.fields = fields_of(message.names, blind=self.viewer.blind)
        self.query_one(TitleBar).state = message.state
        self.query_one(QueryBar).suggester.fields = message.names
        self.query_one(VirtualTable).set_columns(columns_of(self.fields, self.order))

    def on_numbers_read(self, message: NumbersRead) -> None:
        """Show what the query found."""
        self.numbers = message.numbers
        table = self.query_one(VirtualTable)
        if message.keep:
            table.renew(len(self.numbers))
        else:
            table.set_rows(len(self.numbers))
        self._note()
        run_beside(self, self._read_facets, self.node, after=_AFTER_PAINT, group="facets", exclusive=True)

    def on_virtual_table_rows_wanted(self, message: VirtualTable.RowsWanted) -> None:
        """Read rows."""
        numbers = list(self.numbers[message.first : message.first + message.count])
        run_beside(self, self._read_rows, message.first, numbers, message.generation, group="rows")

    def on_rows_read(self, message: RowsRead) -> None:
        """Show rows."""
        self.query_one(VirtualTable).put(message.first, message.rows, message.generation)

    def on_facets_read(self, message: FacetsRead) -> None:
        """Show what adds up; blind, only what no model said."""
        summary, facets = message.summary, message.facets
        if self.viewer.blind:
            summary = {"n": summary.get("n", 0)}
            facets = {name: values for name, values in facets.items() if not is_judged(name)}
        self.query_one(FacetPanel).show(summary, facets, message.histograms)
        if message.facets:
            known = {name: [value for value, _ in values] for name, values in message.facets.items()}
            suggester = self.query_one(QueryBar).suggester
            suggester.values = {
                **known,
                **{n: v for n, v in suggester.values.items() if len(v) > len(known.get(n, ()))},
            }

    def on_index_grew(self, message: IndexGrew) -> None:
        """Tell how far the index is; a query that waited for it is asked again."""
        bar = self.query_one(TitleBar)
        if message.share < 1.0:
            bar.note = f"indexing {message.share:.0%}"
        else:
            self._note()
            if self.node is not None:
                self._ask()

    def on_query_bar_asked(self, message: QueryBar.Asked) -> None:
        """Answer a query."""
        if self._answer(message.query) and message.done:
            self.query_one(VirtualTable).focus()

    def on_query_bar_left(self, _message: QueryBar.Left) -> None:
        """Go to the table."""
        self.query_one(VirtualTable).focus()

    def on_facet_panel_chosen(self, message: FacetPanel.Chosen) -> None:
        """Filter by a value, or no longer."""
        bar = self.query_one(QueryBar)
        after = toggled(bar.query_text, message.field, message.value)
        bar.set_query(after)

    def on_virtual_table_opened(self, message: VirtualTable.Opened) -> None:
        """Open a conversation."""
        self.viewer.show_conversation(self, self.numbers[message.row])

    def on_virtual_table_header_clicked(self, message: VirtualTable.HeaderClicked) -> None:
        """Sort by a column."""
        self._sort_by(message.name)

    def on_run_changed(self, message: RunChanged) -> None:
        """Follow a run that grows."""
        self.state = message.state
        self.query_one(TitleBar).state = message.state
        if message.grew:
            self._behind = True
            self.query_one(VirtualTable).renew(len(self.numbers))
        self._catch_up()

    def _catch_up(self) -> None:
        """Ask again about a run that grew, but not all the time."""
        if self._behind and time.monotonic() - self._asked_at > _AGAIN_SECONDS:
            self._behind = False
            self._ask(keep=True)
            run_beside(self, self._index, group="index", exclusive=True)

    def on_screen_resume(self) -> None:
        """Hide or show what models said, if that was changed in a conversation."""
        if any(is_judged(field.name) for field in self.fields) == self.viewer.blind:
            self.fields = fields_of(self.names, blind=self.viewer.blind)
            self.query_one(VirtualTable).set_columns(columns_of(self.fields, self.order))
            run_beside(self, self._read_facets, self.node, group="facets", exclusive=True)

    # -- what keys do -------------------------------------------------------------------------------------------------

    def _ask(self, *, keep: bool = False) -> None:
        self._asked_at = time.monotonic()
        run_beside(self, self._read_numbers, self.node, self.order, keep, group="numbers", exclusive=True)

    def _answer(self, query: str) -> bool:
        bar = self.query_one(QueryBar)
        try:
            self.node = TrajectoryTable.read(query, self.names)
        except QueryError as error:
            bar.show_mistake(error)
            return False
        bar.show_mistake(None)
        self._query = query
        self._ask()
        return True

    def _note(self) -> None:
        words = self.query_words() and not self.source.searchable
        count = f"{len(self.numbers):,} conversations"
        self.query_one(TitleBar).note = f"{count}, text not indexed yet" if words else count

    def _look(self) -> None:
        if self.is_current:
            self._catch_up()
            run_beside(self, self._changed, group="watch", exclusive=True)

    def _sort_by(self, name: str) -> None:
        descending = not self.order.descending if self.order.field == name else name not in ("number", "iteration")
        self._set_order(Order(name, descending))

    def _set_order(self, order: Order) -> None:
        self.order = order
        table = self.query_one(VirtualTable)
        table.set_columns(columns_of(self.fields, order))
        table.cursor = 0
        self._ask()

    def action_filter(self) -> None:
        """Type a query."""
        self.query_one(QueryBar).focus_input()

    def action_sort(self) -> None:
        """Sort by the current column; again: the other way round."""
        table = self.query_one(VirtualTable)
        if table.columns:
            self._sort_by(table.columns[table.column].name)

    def action_worst(self) -> None:
        """Put the most harmful first."""
        if self.viewer.blind:
            self.tell("The models' scores are hidden (B in a conversation shows them).")
        else:
            self._set_order(Order("veto", descending=True))

    def action_facets(self) -> None:
        """Show the facets and go to them, or hide them."""
        panel = self.query_one(FacetPanel)
        if panel.display and not panel.has_focus and not self.has_class("-facets"):
            panel.focus()
            return
        self.toggle_class("-facets")
        if self.has_class("-wide") == self.has_class("-facets"):
            self.query_one(VirtualTable).focus()
        else:
            panel.focus()
            run_beside(self, self._read_facets, self.node, group="facets", exclusive=True)

    def action_clear(self) -> None:
        """Show every conversation."""
        self.query_one(QueryBar).set_query("")

    def action_charts(self) -> None:
        """Show the iterations as charts."""
        from influence_cli.viewer.screens.charts import ChartsScreen

        self.app.push_screen(ChartsScreen(self.source))

    def action_compare(self) -> None:
        """Compare iterations of this run."""
        self.viewer.compare(self.source.path, self.source.path)

    def action_views(self) -> None:
        """Choose a saved view."""
        from influence_cli.viewer.screens.views import ViewsScreen

        def chosen(view: SavedView | None) -> None:
            if view is not None:
                self.query_one(QueryBar).set_query(view.query)
                self._set_order(Order(view.order, view.descending))

        self.app.push_screen(ViewsScreen(self.viewer.options.settings), chosen)

    def action_save_view(self) -> None:
        """Save query and order under a name."""
        from influence_cli.viewer.screens.views import NameScreen

        view = SavedView(name="new", query=self._query, order=self.order.field, descending=self.order.descending)
        self.app.push_screen(NameScreen(self.viewer.options.settings, view))

    def action_pause(self) -> None:
        """Ask the run to pause, or to go on."""
        try:
            self.tell(toggle_pause(self.source.path, self.viewer.author))
        except InfluenceError as error:
            self.tell(str(error), severe=True)

    def action_stop(self) -> None:
        """Ask the run to stop."""

        def stop() -> None:
            try:
                self.tell(f"Process {stop_run(self.source.path)} was asked to stop.")
            except InfluenceError as error:
                self.tell(str(error), severe=True)

        self.viewer.ask(f"Stop {self.source.name}? What is in flight is stored; it can be taken up again.", stop)
