"""Saved views: chosen, named, forgotten."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from pydantic import ValidationError
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from influence_cli.errors import InfluenceError
from influence_cli.store.saved_views import SavedView, forget_view, save_view, saved_views
from influence_cli.viewer.cells import shown
from influence_cli.viewer.widgets.safe_input import SafeInput
from influence_cli.viewer.widgets.virtual_table import Column, VirtualTable

UP, DOWN = "\u2191", "\u2193"


class ViewsScreen(ModalScreen[SavedView | None]):
    """A list of views."""

    HELP_TITLE = "Saved views"
    DEFAULT_CSS = """
    ViewsScreen { align: center middle; }
    ViewsScreen Vertical {
        width: 90%; max-width: 90; height: 16; max-height: 90%;
        background: $surface; border: round $primary; padding: 0 1;
    }
    ViewsScreen Static { height: 1; color: $dim; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,v", "close", "Close"),
        Binding("d,delete", "forget", "Forget the view"),
    ]

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self.views: list[SavedView] = []

    def compose(self) -> ComposeResult:
        """Return the list."""
        with Vertical():
            yield VirtualTable(id="views")
            yield Static("Enter applies, d forgets one of your own, Esc closes; V in the run saves one.", markup=False)

    def on_mount(self) -> None:
        """Read the views."""
        table = self.query_one(VirtualTable)
        table.set_columns((Column("name", "view", 22), Column("query", "query", 30), Column("order", "sorted by", 14)))
        table.focus()
        self._read()

    def _read(self) -> None:
        try:
            self.views = saved_views(self.folder)
        except InfluenceError as error:
            self.notify(shown(str(error)), severity="error", markup=False)
        self.query_one(VirtualTable).set_rows(len(self.views))

    def on_virtual_table_rows_wanted(self, message: VirtualTable.RowsWanted) -> None:
        """Hand out rows."""
        rows = [
            (
                shown(view.name, newlines=False),
                shown(view.query or "everything", newlines=False),
                f"{view.order} {DOWN if view.descending else UP}",
            )
            for view in self.views
        ]
        message.table.put(0, rows, message.generation)

    def on_virtual_table_opened(self, message: VirtualTable.Opened) -> None:
        """Choose."""
        self.dismiss(self.views[message.row])

    def action_close(self) -> None:
        """Choose nothing."""
        self.dismiss(None)

    def action_forget(self) -> None:
        """Forget one of this person's own."""
        view = self.views[self.query_one(VirtualTable).cursor]
        if not forget_view(self.folder, view.name):
            self.notify(f"{shown(view.name)} comes with the program.", markup=False)
        self._read()


class NameScreen(ModalScreen[None]):
    """Asks what a view is to be called, and saves it."""

    DEFAULT_CSS = """
    NameScreen { align: center middle; }
    NameScreen Vertical {
        width: 60; max-width: 90%; height: auto;
        background: $surface; border: round $primary; padding: 0 1;
    }
    NameScreen Input { border: none; height: 1; background: $panel; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "dismiss", "Close")]

    def __init__(self, folder: Path, view: SavedView) -> None:
        super().__init__()
        self.folder = folder
        self.view = view

    def compose(self) -> ComposeResult:
        """Return the question."""
        with Vertical():
            yield Static(shown(f"Save this view: {self.view.query or 'everything'}", newlines=False), markup=False)
            yield SafeInput(placeholder="its name", max_length=60)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Save it."""
        try:
            named = SavedView.model_validate({**self.view.model_dump(), "name": event.value.strip()})
            save_view(self.folder, named)
        except ValidationError:
            self.notify("A view needs a name.", severity="error", markup=False)
            return
        except InfluenceError as error:
            self.notify(shown(str(error)), severity="error", markup=False)
            return
        self.notify(f"{shown(named.name)} is saved.", markup=False)
        self.dismiss(None)
