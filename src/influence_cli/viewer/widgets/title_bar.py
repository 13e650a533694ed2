"""The line at the top: where one is, and how the run is doing."""

from __future__ import annotations

from typing import ClassVar

from rich.segment import Segment
from textual.reactive import reactive
from textual.strip import Strip
from textual.widget import Widget

from influence_cli.viewer.cells import clipped, shown, width

_SIGNS = {
    "running": "\u25cf running", "paused": "\u2016 paused", "done": "\u2713 done", "stopped": "\u25a0 stopped",
    "failed": "\u2717 failed", "damaged": "\u2717 damaged", "empty": "\u25cb empty",
}  # fmt: skip


def state_sign(state: str) -> str:
    """Return a state with a sign that tells it without colour."""
    return _SIGNS.get(state, state)


class TitleBar(Widget):
    """Title at the left, note and state at the right."""

    DEFAULT_CSS = """
    TitleBar { height: 1; dock: top; background: $panel; color: $foreground; }
    TitleBar > .title--text { color: $foreground; background: $panel; text-style: bold; }
    TitleBar > .title--note { color: $dim; background: $panel; }
    TitleBar > .title--live { color: $success; background: $panel; text-style: bold; }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {"title--text", "title--note", "title--live"}

    text: reactive[str] = reactive("")
    note: reactive[str] = reactive("")
    state: reactive[str] = reactive("")

    def render_line(self, y: int) -> Strip:  # noqa: ARG002 - Textual's signature
        """Return the line."""
        cells = self.size.width
        plain = self.get_component_rich_style("title--text")
        faint = self.get_component_rich_style("title--note")
        live = self.get_component_rich_style("title--live" if self.state in ("running", "paused") else "title--note")
        state = f" {state_sign(self.state)} " if self.state else ""
        room = cells - width(state)
        note = f" {shown(self.note, newlines=False)} " if self.note else ""
        title, taken = clipped(f" {shown(self.text, newlines=False)}", max(8, room - width(note)))
        note, noted = clipped(note, max(0, room - taken))
        space = " " * max(0, room - taken - noted)
        segments = [Segment(title, plain), Segment(space, plain), Segment(note, faint), Segment(state, live)]
        return Strip(segments).crop_extend(0, cells, plain)
