"""Every key of a screen, read from its bindings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.dom import DOMNode
from textual.screen import ModalScreen, Screen
from textual.widgets import Static

from influence_cli.store.filter_sql import FIELDS
from influence_cli.viewer.cells import fitted
from influence_cli.viewer.widgets.lines import Lines, LinesView

_KEYS = 18
_NAMES = {
    "question_mark": "?", "slash": "/", "left_square_bracket": "[", "right_square_bracket": "]", "pagedown": "PgDn",
    "pageup": "PgUp", "up": "\u2191", "down": "\u2193", "left": "\u2190", "right": "\u2192", "escape": "Esc",
}  # fmt: skip
_QUERY = (
    "rating>8 and veto>0.5 and population:gameable \"just stay home\"",
    "A word or a \"phrase\" is looked for in all messages; word* goes on. and, or, not, ( ).",
    "field:value  field:pat*  field=none  field>number    and: score.RUBRIC  label.RUBRIC  profile.KEY",
)  # fmt: skip


def keys_of(node: DOMNode) -> Iterator[tuple[str, str, str]]:
    """Yield group, keys and meaning of every binding of ``node`` and of the widgets in it, each once."""
    seen: set[tuple[str, str]] = set()
    app = node.app
    nodes = [node, *(child for child in node.walk_children() if isinstance(child, DOMNode)), app]
    for each in nodes:
        group = getattr(type(each), "HELP_TITLE", "") or type(each).__name__
        if each is app:
            group = "Everywhere"
        for name, keys, told in _bindings(each):
            if (name, told) not in seen:
                seen.add((name, told))
                yield group, keys, told


def _bindings(node: DOMNode) -> Iterator[tuple[str, str, str]]:
    together: dict[tuple[str, str], list[str]] = {}
    if type(node).__module__.startswith("textual.") and node is not node.app:
        return
    for key, bindings in node._bindings.key_to_bindings.items():  # noqa: SLF001 - Textual offers nothing else that lists all
        for binding in bindings:
            if isinstance(binding, Binding) and binding.description and not binding.system:
                together.setdefault((binding.action, binding.description), []).append(
                    node.app.get_key_display(binding) if binding.key_display else _named(key)
                )
    for (action, told), keys in together.items():
        yield action, ", ".join(dict.fromkeys(keys)), told


def _named(key: str) -> str:
    return _NAMES.get(key, key)


class HelpScreen(ModalScreen[None]):
    """All keys, and the query language."""

    DEFAULT_CSS = """
    HelpScreen { align: center middle; }
    HelpScreen #help {
        width: 90%; max-width: 96; height: 90%;
        background: $surface; border: round $primary; padding: 0 1;
    }
    HelpScreen #help-title { height: 1; color: $primary; text-style: bold; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q,question_mark,f1", "dismiss", "Close")]

    def __init__(self, about: Screen[None]) -> None:
        super().__init__()
        self.about = about

    def compose(self) -> ComposeResult:
        """Return the list."""
        from textual.containers import Vertical

        with Vertical(id="help"):
            yield Static("Keys \u2022 Esc closes", id="help-title", markup=False)
            yield LinesView()

    def on_mount(self) -> None:
        """Fill the list."""
        view = self.query_one(LinesView)
        view.show(self._lines)
        view.focus()

    def _lines(self, cells: int) -> Lines:
        lines: Lines = []
        group = ""
        for name, keys, told in keys_of(self.about):
            if name != group:
                lines += [[] if lines else [("", "text")], [(name, "heading")]]
                group = name
            lines.append([(fitted(f"  {keys}", _KEYS), "strong"), (" " + told, "text")])
        lines += [[], [("Queries", "heading")], *([(f"  {line}", "text")] for line in _QUERY), []]
        lines += [
            [(fitted(f"  {field.name}", _KEYS), "strong"), (f" {field.told}", "text")] for field in FIELDS.values()
        ]
        return [[(text[:cells], style) for text, style in line] for line in lines]
