"""Prepared lines, scrolled: what conversations, prompts, charts and help are drawn by.

A line is a list of pieces, each a text and the name of a style. Whoever shows something gives a function from the width to
lines; it is asked again when the width changes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Size
from textual.scroll_view import ScrollView
from textual.strip import Strip

from influence_cli.viewer.cells import clipped

Line = list[tuple[str, str]]
Lines = list[Line]
Layout = Callable[[int], Lines]


def cut(line: Line, cells: int) -> Line:
    """Return ``line`` in at most ``cells`` cells."""
    left = cells
    out: Line = []
    for text, style in line:
        if left <= 0:
            break
        piece, taken = clipped(text, left)
        out.append((piece, style))
        left -= taken
    return out


STYLES = (
    "text", "strong", "faint", "heading", "agent", "user", "tool", "system", "bar", "harm", "good", "quote", "removed",
    "added", "chosen", "warning",
)  # fmt: skip


class LinesView(ScrollView, can_focus=True):
    """Lines under one another."""

    DEFAULT_CSS = """
    LinesView { height: 1fr; background: $background; scrollbar-size: 1 1; overflow-x: hidden; }
    LinesView > .lines--text { color: $foreground; background: $background; }
    LinesView > .lines--strong { color: $foreground; background: $background; text-style: bold; }
    LinesView > .lines--faint { color: $dim; background: $background; }
    LinesView > .lines--heading { color: $primary; background: $background; text-style: bold; }
    LinesView > .lines--agent { color: $role-agent; background: $background; text-style: bold; }
    LinesView > .lines--user { color: $role-user; background: $background; text-style: bold; }
    LinesView > .lines--tool { color: $role-tool; background: $background; }
    LinesView > .lines--system { color: $role-system; background: $background; }
    LinesView > .lines--bar { color: $bar; background: $background; }
    LinesView > .lines--harm { color: $bar-harm; background: $background; text-style: bold; }
    LinesView > .lines--good { color: $success; background: $background; }
    LinesView > .lines--quote { color: $foreground; background: $quote; text-style: underline; }
    LinesView > .lines--removed { color: $error; background: $background; text-style: underline; }
    LinesView > .lines--added { color: $success; background: $background; text-style: underline; }
    LinesView > .lines--chosen { color: $accent; background: $background; text-style: bold; }
    LinesView > .lines--warning { color: $warning; background: $background; text-style: bold; }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {f"lines--{name}" for name in STYLES}
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j,down", "lines(1)", "Down", show=False),
        Binding("k,up", "lines(-1)", "Up", show=False),
        Binding("space,pagedown,ctrl+f,ctrl+d", "pages(1)", "Page down", show=False),
        Binding("pageup,ctrl+b,ctrl+u", "pages(-1)", "Page up", show=False),
        Binding("g,home", "top", "Top", show=False),
        Binding("G,end", "bottom", "Bottom", show=False),
    ]

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 - Textual's name
        super().__init__(id=id)
        self.lines: Lines = []
        self._layout_of: Layout | None = None
        self._styles: dict[str, Style] = {}

    def show(self, layout: Layout, *, keep: bool = False) -> None:
        """Show what ``layout`` makes; at its beginning unless ``keep``."""
        self._layout_of = layout
        self.relay()
        if not keep:
            self.scroll_to(y=0, animate=False, force=True)

    def relay(self) -> None:
        """Lay the lines out again."""
        if self._layout_of is not None and self.size.width > 0:
            self.lines = self._layout_of(max(10, self.size.width - 1))
        self.virtual_size = Size(max(1, self.size.width - 1), len(self.lines))
        self.refresh()

    def on_resize(self, _event: events.Resize) -> None:
        """Lay out for the new width."""
        self.relay()

    def notify_style_update(self) -> None:
        """Forget the colours of the theme before."""
        self._styles.clear()
        super().notify_style_update()

    def render_line(self, y: int) -> Strip:
        """Return a line."""
        number = self.scroll_offset.y + y
        text = self._style("text")
        pieces = self.lines[number] if number < len(self.lines) else []
        strip = Strip([Segment(piece, self._style(name)) for piece, name in pieces])
        return strip.crop_extend(0, self.size.width, text)

    def _style(self, name: str) -> Style:
        style = self._styles.get(name)
        if style is None:
            style = self._styles[name] = self.get_component_rich_style(f"lines--{name}")
        return style

    def action_lines(self, lines: int) -> None:
        """Scroll by lines."""
        self.scroll_to(y=self.scroll_offset.y + lines, animate=False, force=True)

    def action_pages(self, pages: int) -> None:
        """Scroll by what is in sight."""
        self.action_lines(pages * max(1, self.size.height - 2))

    def action_top(self) -> None:
        """Scroll to the first line."""
        self.scroll_to(y=0, animate=False, force=True)

    def action_bottom(self) -> None:
        """Scroll to the last line."""
        self.scroll_to(y=len(self.lines), animate=False, force=True)
