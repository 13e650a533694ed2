"""What all screens share: a title, keys at the bottom, help, and trouble told once."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, cast

from textual.binding import Binding, BindingType
from textual.screen import Screen

from influence_cli.viewer.cells import shown
from influence_cli.viewer.events import TroubleMet

if TYPE_CHECKING:
    from influence_cli.viewer.app import ViewerApp


class ViewerScreen(Screen[None]):
    """A screen of the viewer."""

    HELP_TITLE: ClassVar[str] = ""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q", "back", "Back", show=True),
        Binding("question_mark,f1", "help", "Help", show=True, key_display="?"),
    ]

    @property
    def viewer(self) -> ViewerApp:
        """The application."""
        return cast("ViewerApp", self.app)

    def action_back(self) -> None:
        """Return to the screen before; from the first one, end."""
        self.viewer.go_back()

    def action_help(self) -> None:
        """Show every key that works here."""
        from influence_cli.viewer.screens.help import HelpScreen

        self.app.push_screen(HelpScreen(self))

    def on_trouble_met(self, message: TroubleMet) -> None:
        """Tell what could not be done."""
        self.tell(message.text, severe=True)

    def tell(self, text: str, *, severe: bool = False) -> None:
        """Say something at the corner; it goes away by itself."""
        self.notify(shown(text), severity="error" if severe else "information", markup=False)
