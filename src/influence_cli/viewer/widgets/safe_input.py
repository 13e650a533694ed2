"""A line to type in that shows nothing but what is harmless, whatever was pasted into it."""

from __future__ import annotations

from textual.widgets import Input

from influence_cli.viewer.cells import shown


class SafeInput(Input):
    """An input whose value is made harmless. Its cursor stands still where a picture is taken."""

    def on_mount(self) -> None:
        """Blink only before somebody's eyes."""
        self.cursor_blink = not self.app.is_headless

    def validate_value(self, value: str) -> str:
        """Return the value as it can be shown."""
        return shown(value, newlines=False)
