"""The query bar: a line of the query language with completion, and one line under it for what cannot be read."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.message import Message
from textual.suggester import Suggester
from textual.widgets import Input, Static

from influence_cli.store.filter_language import QueryError, quoted, tokens_of
from influence_cli.viewer.cells import clipped, shown
from influence_cli.viewer.widgets.safe_input import SafeInput
from influence_cli.viewer.workers import run_beside

_WAIT = 0.15
"""Seconds without a key before a query is asked."""
_EDGE = 2
"""Cells between the bar's edge and its text."""


class QuerySuggester(Suggester):
    """Completes the last word: a field, or a value of the field before it."""

    def __init__(self) -> None:
        super().__init__(use_cache=False, case_sensitive=True)
        self.fields: Sequence[str] = ()
        self.values: Mapping[str, Sequence[str]] = {}

    async def get_suggestion(self, value: str) -> str | None:
        """Return ``value`` with its last word completed; None if nothing begins with it."""
        return complete(value, self.fields, self.values)


def complete(query: str, fields: Iterable[str], values: Mapping[str, Sequence[str]]) -> str | None:
    """Return ``query`` with its last word completed; None where nothing fits."""
    try:
        tokens = tokens_of(query)
    except QueryError:
        return None
    if not tokens or tokens[-1].end <= len(query):
        return None
    last = tokens[-1]
    before = tokens[-2] if len(tokens) > 1 else None
    if last.kind == "operator" and before is not None:
        known = values.get(before.text.lower(), ())
        return query + _written(known[0]) if known and last.text in (":", "=") else None
    if last.kind != "word":
        return None
    if before is not None and before.kind == "operator" and len(tokens) > 2:
        known = values.get(tokens[-3].text.lower(), ())
        fitting = (_written(each) for each in known if each.startswith(last.text))
    else:
        fitting = (each for each in fields if each.startswith(last.text.lower()))
    found = next((each for each in fitting if len(each) > len(last.text)), None)
    return None if found is None else query[: last.column - 1] + found


def _written(value: str) -> str:
    """Return ``value`` as a query names it; what cannot be shown becomes a pattern's star."""
    if shown(value, newlines=False) != value:
        value = "".join(c if shown(c, newlines=False) == c else "*" for c in value)
    return value if value.isascii() and all(c.isalnum() or c in "._/-" for c in value) else quoted(value)


def toggled(query: str, field: str, value: str) -> str:
    """Return ``query`` with the term ``field:value`` added, or taken away if it is there."""
    term = f"{field}:{_written(value)}"
    before = query.strip()
    if term in before.split():
        return " ".join(part for part in before.split() if part != term)
    return f"({before}) {term}" if " or " in before else f"{before} {term}".strip()


class QueryBar(Vertical):
    """An input, and the mistake in it."""

    HELP_TITLE = "Query bar"
    DEFAULT_CSS = """
    QueryBar { height: auto; background: $surface; }
    QueryBar Input { border: none; height: 1; padding: 0 2; background: $surface; }
    QueryBar Input:focus { border: none; background: $panel; }
    QueryBar #mistake { height: 1; color: $error; background: $surface; display: none; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("tab", "take", "Take the completion", show=False, priority=True),
        Binding("escape", "leave", "Leave the query", show=False, priority=True),
        Binding("ctrl+l", "clear", "Clear the query", show=False, priority=True),
    ]

    @dataclass
    class Asked(Message):
        """A query that is to be answered."""

        query: str
        done: bool

    @dataclass
    class Left(Message):
        """The bar was left."""

    def __init__(self, query: str = "") -> None:
        super().__init__()
        self.suggester = QuerySuggester()
        self._first = query
        self._asked = query

    def compose(self) -> ComposeResult:
        """Return input and mistake."""
        yield SafeInput(
            self._first,
            placeholder='/ filters: rating>8 and veto>0.5 population:gameable "just stay home"',
            suggester=self.suggester,
            select_on_focus=False,
        )
        yield Static(id="mistake", markup=False)

    @property
    def query_text(self) -> str:
        """What stands in the bar."""
        return self.query_one(Input).value

    def set_query(self, query: str) -> None:
        """Put a query into the bar; it is asked at once."""
        field = self.query_one(Input)
        field.value = query
        field.cursor_position = len(query)
        self._ask()

    def focus_input(self) -> None:
        """Let the person type."""
        self.query_one(Input).focus()

    def show_mistake(self, error: QueryError | None) -> None:
        """Point at the mistake, or at none."""
        line = self.query_one("#mistake", Static)
        line.display = error is not None
        if error is not None:
            place = max(0, min(error.column - 1 + _EDGE, self.size.width - 1))
            text, _ = clipped(shown(str(error), newlines=False), max(10, self.size.width - 3))
            room = self.size.width - place - 2
            line.update(f"{' ' * place}\u25b2 {text}" if len(text) <= room else f"{text[: self.size.width - 2]} \u25b2")

    def on_input_changed(self, event: Input.Changed) -> None:
        """Ask once nothing was typed for a moment."""
        event.stop()
        run_beside(self, self._ask_soon, group="typing", exclusive=True)

    async def _ask_soon(self) -> None:
        await asyncio.sleep(_WAIT)
        self._ask()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Ask at once, and leave."""
        event.stop()
        self._ask(done=True)

    def _ask(self, *, done: bool = False) -> None:
        if self.query_text != self._asked or done:
            self._asked = self.query_text
            self.post_message(self.Asked(self.query_text, done))

    def action_take(self) -> None:
        """Take what is suggested; where nothing is, leave."""
        field = self.query_one(Input)
        wanted = complete(field.value, self.suggester.fields, self.suggester.values)
        if wanted is not None and field.has_focus:
            self.set_query(wanted)
        else:
            self.post_message(self.Left())

    def action_leave(self) -> None:
        """Leave."""
        self.post_message(self.Left())

    def action_clear(self) -> None:
        """Ask for everything."""
        self.set_query("")
