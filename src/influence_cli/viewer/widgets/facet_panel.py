"""What the conversations in sight are: counts by population, scenario and so on, and how their numbers are distributed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from rich.segment import Segment
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Size
from textual.message import Message
from textual.reactive import reactive
from textual.scroll_view import ScrollView
from textual.strip import Strip

from influence_cli.store.trajectory_table import Histogram
from influence_cli.viewer import formats
from influence_cli.viewer.cells import fitted, shown
from influence_cli.viewer.charts import bar, sparkline

_BAR = 5


@dataclass(frozen=True)
class Entry:
    """A line of the panel; one with a value can be chosen."""

    text: str
    style: str
    field: str = ""
    value: str = ""
    bar: str = ""


class FacetPanel(ScrollView, can_focus=True):
    """Counts that filter when they are chosen."""

    HELP_TITLE = "Facets"
    DEFAULT_CSS = """
    FacetPanel {
        width: 32; height: 1fr; background: $surface; border-left: solid $panel;
        overflow-x: hidden; scrollbar-size: 1 1; }
    FacetPanel:focus { border-left: solid $primary; }
    FacetPanel > .facet--heading { color: $primary; background: $surface; text-style: bold; }
    FacetPanel > .facet--text { color: $foreground; background: $surface; }
    FacetPanel > .facet--bar { color: $bar; background: $surface; }
    FacetPanel > .facet--cursor { color: $foreground; background: $cursor-line; text-style: bold; }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {"facet--heading", "facet--text", "facet--bar", "facet--cursor"}
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j,down", "move(1)", "Down", show=False),
        Binding("k,up", "move(-1)", "Up", show=False),
        Binding("enter,space", "choose", "Filter by it", show=False),
    ]

    cursor: reactive[int] = reactive(0)

    @dataclass
    class Chosen(Message):
        """A value of a field was chosen."""

        field: str
        value: str

    def __init__(self) -> None:
        super().__init__(id="facets")
        self.entries: list[Entry] = []

    def show(
        self,
        summary: Mapping[str, Any],
        facets: Mapping[str, Sequence[tuple[str, int]]],
        histograms: Mapping[str, Histogram],
    ) -> None:
        """Show counts and distributions."""
        cells = max(12, self.size.width - 2)
        entries = [Entry(f"{summary.get('n', 0):,} conversations", "heading")]
        if "rating" in summary:
            rating, veto = formats.number(summary["rating"]), formats.number(summary["veto"], 3)
            entries.append(Entry(f"rating {rating}  harm {veto}", "text"))
        for name, histogram in histograms.items():
            entries += [Entry("", "text"), Entry(name, "heading"), *_distribution(histogram, cells)]
        for name, values in facets.items():
            if len(values) < 2 and name != "population":
                continue
            entries += [Entry("", "text"), Entry(name, "heading")]
            most = max((count for _, count in values), default=1)
            for value, count in values:
                number = f"{count:,}"
                room = cells - _BAR - len(number) - 2
                text = f"{fitted(shown(value, newlines=False), room)} {number} "
                entries.append(Entry(text, "text", name, value, bar(count / most, _BAR)))
        self.entries = entries
        self.virtual_size = Size(cells, len(entries))
        if not (self.cursor < len(entries) and entries[self.cursor].field):
            self.cursor = next((i for i, entry in enumerate(entries) if entry.field), 0)
        self.refresh()

    def render_line(self, y: int) -> Strip:
        """Return a line."""
        number = self.scroll_offset.y + y
        plain = self.get_component_rich_style("facet--text")
        if number >= len(self.entries):
            return Strip.blank(self.size.width, plain)
        entry = self.entries[number]
        current = self.has_focus and number == self.cursor
        style = self.get_component_rich_style("facet--cursor" if current else f"facet--{entry.style}")
        drawn = style if current else self.get_component_rich_style("facet--bar")
        segments = [Segment(("\u25b8" if current else " ") + entry.text, style), Segment(entry.bar, drawn)]
        return Strip(segments).crop_extend(0, self.size.width, style)

    def action_move(self, by: int) -> None:
        """Move to the next line that can be chosen."""
        number = self.cursor + by
        while 0 <= number < len(self.entries):
            if self.entries[number].field:
                self.cursor = number
                break
            number += by
        height = max(1, self.size.height)
        if not self.scroll_offset.y <= self.cursor < self.scroll_offset.y + height:
            self.scroll_to(y=max(0, self.cursor - height // 2), animate=False, force=True)

    def action_choose(self) -> None:
        """Filter by the current line."""
        if self.cursor < len(self.entries):
            entry = self.entries[self.cursor]
            if entry.field:
                self.post_message(self.Chosen(entry.field, entry.value))

    def on_click(self, event: events.Click) -> None:
        """Filter by the line that was clicked."""
        number = self.scroll_offset.y + event.y
        if number < len(self.entries) and self.entries[number].field:
            self.cursor = number
            self.action_choose()


def _distribution(histogram: Histogram, cells: int) -> list[Entry]:
    low, high = f"{histogram.low:.3g}", f"{histogram.high:.3g}"
    line = sparkline(histogram.counts, min(len(histogram.counts), cells - 2))
    return [Entry(line, "bar"), Entry(low + high.rjust(max(1, len(line) - len(low))), "text")]
