"""Text of any length: prompts, whole replies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import Footer

from influence_cli.viewer.cells import clipped, shown, wrapped
from influence_cli.viewer.screens.listing import ViewerScreen
from influence_cli.viewer.widgets.lines import Lines, LinesView
from influence_cli.viewer.widgets.title_bar import TitleBar

_STYLES = {"system": "system", "user": "user", "assistant": "agent", "agent": "agent", "tool": "tool"}


class PagerScreen(ViewerScreen):
    """Blocks of text under their speakers."""

    HELP_TITLE = "Text"
    BINDINGS: ClassVar[list[BindingType]] = [Binding("y", "copy", "Copy", show=True)]

    def __init__(self, title: str, blocks: Sequence[tuple[str, str]], note: str) -> None:
        super().__init__()
        self.heading = title
        self.blocks = [(speaker, shown(text)) for speaker, text in blocks]
        self.note = note

    def compose(self) -> ComposeResult:
        """Return title and text."""
        yield TitleBar()
        yield LinesView()
        yield Footer(compact=True, show_command_palette=False)

    def on_mount(self) -> None:
        """Show the text."""
        self.query_one(TitleBar).text = self.heading
        view = self.query_one(LinesView)
        view.show(self._lines)
        view.focus()

    def _lines(self, cells: int) -> Lines:
        lines: Lines = []
        if self.note:
            note = shown(self.note, newlines=False)
            lines += [*([(note[a:b], "faint")] for a, b in wrapped(note, cells)), []]
        for speaker, text in self.blocks:
            style = _STYLES.get(speaker, "heading")
            lines.append([(clipped(f"\u2500\u2500 {speaker}  {len(text):,} characters", cells)[0], style)])
            lines += [[(text[a:b], "text")] for a, b in wrapped(text, cells)]
            lines.append([])
        return lines

    def action_copy(self) -> None:
        """Copy all of it."""
        self.viewer.copy_text("\n\n".join(f"{speaker}:\n{text}" for speaker, text in self.blocks))
        self.tell("Copied.")
