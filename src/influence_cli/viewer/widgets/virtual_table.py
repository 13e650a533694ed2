"""A table of any length that holds only the rows in sight.

It knows how many rows there are and asks for those it lacks with :class:`VirtualTable.RowsWanted`; until they come, their
lines show a dot. Scrolling therefore never waits for anything.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Region, Size
from textual.message import Message
from textual.reactive import reactive
from textual.scroll_view import ScrollView
from textual.strip import Strip

from influence_cli.viewer.cells import fitted, width

PAGE = 100
_MOST_PAGES = 40


@dataclass(frozen=True)
class Column:
    """A column: ``mark`` follows its title, an arrow where it is sorted by; ``end`` keeps the end of what is too long."""

    name: str
    title: str
    cells: int
    right: bool = False
    mark: str = ""
    end: bool = False


@dataclass
class TableMessage(Message):
    """Something that ``table`` tells."""

    table: VirtualTable

    @property
    def control(self) -> VirtualTable:
        """The table that tells it."""
        return self.table


class VirtualTable(ScrollView, can_focus=True):
    """Rows of text under a heading that stays; one row and one column are the current ones."""

    DEFAULT_CSS = """
    VirtualTable { height: 1fr; background: $background; scrollbar-size: 1 1; }
    VirtualTable > .table--header { color: $primary; background: $surface; text-style: bold; }
    VirtualTable > .table--chosen { color: $accent; background: $surface; text-style: bold underline; }
    VirtualTable > .table--row { color: $foreground; background: $background; }
    VirtualTable > .table--cursor { color: $foreground; background: $cursor-line; text-style: bold; }
    VirtualTable > .table--empty { color: $dim; background: $background; }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "table--header", "table--chosen", "table--row", "table--cursor", "table--empty",
    }  # fmt: skip
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j,down", "move(1)", "Down", show=False),
        Binding("k,up", "move(-1)", "Up", show=False),
        Binding("ctrl+d,pagedown,ctrl+f", "page(1)", "Page down", show=False),
        Binding("ctrl+u,pageup,ctrl+b", "page(-1)", "Page up", show=False),
        Binding("g,home", "go(0)", "First row", show=False),
        Binding("G,end", "go(-1)", "Last row", show=False),
        Binding("l,right", "column(1)", "Next column", show=False),
        Binding("h,left", "column(-1)", "Previous column", show=False),
        Binding("enter", "open", "Open", show=True),
    ]

    cursor: reactive[int] = reactive(0)
    column: reactive[int] = reactive(0)

    @dataclass
    class RowsWanted(TableMessage):
        """Rows from ``first`` on, ``count`` of them, are in sight and not here; ``generation`` goes back with them."""

        first: int
        count: int
        generation: int

    @dataclass
    class Opened(TableMessage):
        """The row was chosen."""

        row: int

    @dataclass
    class Moved(TableMessage):
        """The current row is another one."""

        row: int

    @dataclass
    class HeaderClicked(TableMessage):
        """A heading was clicked."""

        name: str

    def __init__(self, *, empty: str = "Nothing here.", id: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self.empty = empty
        self.columns: tuple[Column, ...] = ()
        self.row_count = 0
        self._pages: OrderedDict[int, Mapping[int, Sequence[str]]] = OrderedDict()
        self._wanted: set[int] = set()
        self._stale: set[int] = set()
        self._generation = 0

    # -- what it shows ------------------------------------------------------------------------------------------------

    def set_columns(self, columns: Sequence[Column]) -> None:
        """Show ``columns``; rows that are here are forgotten."""
        self.columns = tuple(columns)
        self.column = min(self.column, max(0, len(self.columns) - 1))
        self.forget()
        self._measure()

    def set_rows(self, count: int, *, keep: bool = False) -> None:
        """Say how many rows there are; all are forgotten unless ``keep``."""
        self.row_count = count
        if not keep:
            self.forget()
        self._measure()
        self.cursor = max(0, min(self.cursor, count - 1))
        self.refresh()

    def forget(self) -> None:
        """Ask again for every row that comes in sight."""
        self._generation += 1
        self._pages.clear()
        self._wanted.clear()
        self._stale.clear()
        self.refresh()

    def renew(self, count: int) -> None:
        """Ask again for the rows in sight, and show what is here until they come."""
        self._generation += 1
        self._wanted.clear()
        self._stale = set(self._pages)
        self.set_rows(count, keep=True)

    def put(self, first: int, rows: Sequence[Sequence[str]], generation: int) -> None:
        """Take rows that were wanted; those of another generation are of another query, and dropped."""
        if generation != self._generation:
            return
        page = first // PAGE
        self._wanted.discard(page)
        self._stale.discard(page)
        self._pages[page] = dict(enumerate(rows, start=first))
        while len(self._pages) > _MOST_PAGES:
            self._pages.popitem(last=False)
        self.refresh()

    def row(self, number: int) -> Sequence[str] | None:
        """Return a row if it is here."""
        page = self._pages.get(number // PAGE)
        return page.get(number) if page is not None else None

    @property
    def generation(self) -> int:
        """Which query the rows belong to."""
        return self._generation

    def _measure(self) -> None:
        across = sum(column.cells + 1 for column in self.columns) + 1
        self.virtual_size = Size(across, self.row_count + 1)

    # -- drawing ------------------------------------------------------------------------------------------------------

    def render_line(self, y: int) -> Strip:
        """Return the heading, or a row."""
        scroll_x, scroll_y = self.scroll_offset
        if y == 0:
            strip = self._header()
        else:
            number = scroll_y + y - 1
            strip = self._line(number) if number < self.row_count else self._blank(y)
        style = self._style(
            "table--cursor" if y and scroll_y + y - 1 == self.cursor and self.row_count else "table--row"
        )
        if y == 0:
            style = self._style("table--header")
        return strip.crop_extend(scroll_x, scroll_x + self.size.width, style)

    def _style(self, name: str) -> Style:
        return self.get_component_rich_style(name)

    def _header(self) -> Strip:
        plain, chosen = self._style("table--header"), self._style("table--chosen")
        segments = [Segment(" ", plain)]
        for position, column in enumerate(self.columns):
            title = f"{column.title}{column.mark}"
            current = position == self.column and self.has_focus
            text = fitted(title, column.cells, right=column.right)
            segments += [Segment(text, chosen if current else plain), Segment(" ", plain)]
        return Strip(segments)

    def _blank(self, y: int) -> Strip:
        text = f" {self.empty}" if y == 1 and self.row_count == 0 else ""
        return Strip([Segment(text, self._style("table--empty"))])

    def _line(self, number: int) -> Strip:
        row = self.row(number)
        current = number == self.cursor
        style = self._style("table--cursor" if current else "table--row")
        if row is None or number // PAGE in self._stale:
            self._want(number)
        if row is None:
            return Strip([Segment("\u25b8" if current else " ", style), Segment("\u00b7", style)])
        segments = [Segment("\u25b8" if current else " ", style)]
        for column, text in zip(self.columns, row, strict=True):
            segments.append(Segment(fitted(text, column.cells, right=column.right, end=column.end) + " ", style))
        return Strip(segments)

    def _want(self, number: int) -> None:
        page = number // PAGE
        if page in self._wanted:
            return
        self._wanted.add(page)
        first = page * PAGE
        self.post_message(self.RowsWanted(self, first, min(PAGE, self.row_count - first), self._generation))

    # -- moving -------------------------------------------------------------------------------------------------------

    def validate_cursor(self, value: int) -> int:
        """Keep the cursor on a row."""
        return max(0, min(value, self.row_count - 1))

    def watch_cursor(self, _before: int, after: int) -> None:
        """Bring the row in sight and tell of it."""
        self._in_sight(after)
        self.refresh()
        self.post_message(self.Moved(self, after))

    def watch_column(self) -> None:
        """Bring the column in sight."""
        left = sum(column.cells + 1 for column in self.columns[: self.column])
        across = self.columns[self.column].cells + 2 if self.columns else 1
        self.scroll_to_region(Region(left, self.scroll_offset.y, across, 1), animate=False, force=True)
        self.refresh()

    def _in_sight(self, row: int) -> None:
        rows = max(1, self.size.height - 1)
        top = self.scroll_offset.y
        if row < top:
            self.scroll_to(y=row, animate=False, force=True)
        elif row >= top + rows:
            self.scroll_to(y=row - rows + 1, animate=False, force=True)

    def action_move(self, rows: int) -> None:
        """Move the cursor."""
        self.cursor += rows

    def action_page(self, pages: int) -> None:
        """Move the cursor by what is in sight."""
        self.cursor += pages * max(1, self.size.height - 2)

    def action_go(self, row: int) -> None:
        """Move the cursor to a row; a negative one is counted from the end."""
        self.cursor = row if row >= 0 else self.row_count + row

    def action_column(self, columns: int) -> None:
        """Move to another column."""
        if self.columns:
            self.column = max(0, min(self.column + columns, len(self.columns) - 1))

    def action_open(self) -> None:
        """Choose the current row."""
        if self.row_count:
            self.post_message(self.Opened(self, self.cursor))

    def on_click(self, event: events.Click) -> None:
        """Choose a row by two clicks, move to it by one; sort by a heading."""
        if event.y == 0:
            name = self._column_at(event.x + self.scroll_offset.x)
            if name is not None:
                self.post_message(self.HeaderClicked(self, name))
            return
        row = self.scroll_offset.y + event.y - 1
        if row < self.row_count:
            again = row == self.cursor and event.chain > 1
            self.cursor = row
            if again:
                self.action_open()

    def _column_at(self, x: int) -> str | None:
        left = 1
        for column in self.columns:
            if left <= x < left + column.cells + 1:
                return column.name
            left += column.cells + 1
        return None


def column_cells(title: str, least: int) -> int:
    """Return the width of a column that holds its title and an arrow."""
    return max(least, width(title) + 1)
