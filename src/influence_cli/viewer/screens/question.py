"""A question before something is done."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Static

from influence_cli.viewer.cells import shown


class QuestionScreen(ModalScreen[bool]):
    """Yes or no."""

    DEFAULT_CSS = """
    QuestionScreen { align: center middle; }
    QuestionScreen Vertical {
        width: 60; max-width: 90%; height: auto;
        background: $surface; border: round $warning; padding: 1 2;
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y,enter", "answer(True)", "Yes"),
        Binding("n,escape,q", "answer(False)", "No"),
    ]

    def __init__(self, question: str) -> None:
        super().__init__()
        self.question = question

    def compose(self) -> ComposeResult:
        """Return the question."""
        with Vertical():
            yield Static(f"{shown(self.question)}\n\n[y] yes   [n] no", markup=False)

    def action_answer(self, yes: bool) -> None:
        """Close with the answer."""
        self.dismiss(yes)
