"""Labelling with the keyboard: a rubric's choices on the digits, a note, a flag."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.message import Message
from textual.widgets import Input, Static

from influence_cli.schemas.rubrics import Rubric
from influence_cli.store.conversation import StoredConversation
from influence_cli.store.labels import LabelRecord
from influence_cli.viewer.cells import fitted, shown
from influence_cli.viewer.widgets.safe_input import SafeInput

OVERALL = Rubric(
    id="harm", title="How harmful is this?", question="How harmful is this to the user?", harmful_direction="up"
)
"""What is asked where no rubric is known."""
_KEYS = "1234567890"


class LabelBar(Vertical, can_focus=True):
    """A rubric's question and its choices; hidden until it is asked for."""

    HELP_TITLE = "Labels"
    DEFAULT_CSS = """
    LabelBar { height: auto; display: none; background: $surface; border-top: solid $panel; padding: 0 1; }
    LabelBar:focus-within, LabelBar:focus { border-top: solid $accent; }
    LabelBar.-open { display: block; }
    LabelBar Static { height: auto; max-height: 3; background: $surface; }
    LabelBar #choices { color: $accent; text-style: bold; }
    LabelBar Input { display: none; border: none; height: 1; padding: 0; background: $panel; }
    LabelBar.-note Input { display: block; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("tab,down,j", "rubric(1)", "Next rubric", show=True, key_display="tab"),
        Binding("shift+tab,up,k", "rubric(-1)", "Previous rubric", show=False),
        Binding("f", "flag", "Flag", show=True),
        Binding("m", "note", "Note", show=True),
        Binding("enter,right,l", "next", "Next conversation", show=True, key_display="enter"),
        Binding("backspace,delete", "clear", "Take the label back", show=False),
        Binding("escape,L", "close", "Stop labelling", show=True, key_display="esc"),
    ]

    @dataclass
    class Given(Message):
        """A label was given."""

        label: LabelRecord

    @dataclass
    class NextWanted(Message):
        """The next conversation is wanted."""

    @dataclass
    class Closed(Message):
        """Labelling is over."""

    def __init__(self, rubrics: Sequence[Rubric]) -> None:
        super().__init__()
        self.rubrics = tuple(rubrics) or (OVERALL,)
        self.at = 0
        self.episode_id = 0
        self.turn = 0
        self.author = ""
        self._replies: list[int] = []
        self._known: dict[tuple[int, str], LabelRecord] = {}

    def compose(self) -> ComposeResult:
        """Return question, choices and note."""
        yield Static(id="question", markup=False)
        yield Static(id="choices", markup=False)
        yield Static(id="state", markup=False)
        yield SafeInput(placeholder="A note; Enter keeps it")

    def on_resize(self) -> None:
        """Fit the lines to the new width."""
        self._show()

    @property
    def rubric(self) -> Rubric:
        """What is asked now."""
        return self.rubrics[self.at]

    @property
    def target(self) -> int:
        """The turn that the rubric is about: 0 for a whole conversation."""
        if self.rubric.scope == "conversation":
            return 0
        if self.rubric.scope == "last":
            return self._replies[-1] if self._replies else 0
        return self.turn

    @property
    def label(self) -> LabelRecord:
        """The label as it stands."""
        known = self._known.get((self.target, self.rubric.id))
        return known or LabelRecord(
            episode_id=self.episode_id, turn=self.target, rubric=self.rubric.id, author=self.author or "me"
        )

    def open_on(self, conversation: StoredConversation, turn: int, author: str) -> None:
        """Turn to a conversation and turn."""
        self.episode_id, self.turn, self.author = conversation.episode_id, turn, author
        self._replies = conversation.reply_turns()
        self._known = {(each.turn, each.rubric): each for each in conversation.labels if each.author == author}
        self._show()

    def begin(self, conversation: StoredConversation, turn: int, author: str) -> None:
        """Show the bar and take the keys."""
        self.add_class("-open")
        self.open_on(conversation, turn, author)
        self.focus()

    def _show(self) -> None:
        if not self.has_class("-open"):
            return
        rubric, label = self.rubric, self.label
        about = f"turn {self.target}" if self.target else "the conversation"
        cells = max(20, self.size.width - 2)
        title = f"[{self.at + 1}/{len(self.rubrics)}] {rubric.id}, {about}: {rubric.title or rubric.question}"
        self.query_one("#question", Static).update(fitted(shown(title, newlines=False), cells).rstrip())
        parts = [_told(key, choice, given=choice == label.value) for key, choice in self._keys()]
        self.query_one("#choices", Static).update("  ".join(parts))
        flag = "\u2691 flagged  " if label.flag else ""
        note = f"note: {shown(label.note, newlines=False)}" if label.note else ""
        given = f"label {shown(label.value, newlines=False)}  " if label.value is not None else "no label  "
        self.query_one("#state", Static).update(fitted(f"{given}{flag}{note}", cells).rstrip())

    def _keys(self) -> list[tuple[str, str]]:
        """Return key and choice; a choice that is a digit has its own key, ten is on 0."""
        choices = self.rubric.choices
        if all(choice.isdigit() and 0 <= int(choice) <= 10 for choice in choices) and not (
            "0" in choices and "10" in choices
        ):
            return [("0" if choice == "10" else choice, choice) for choice in choices]
        return list(zip(_KEYS, choices, strict=False))

    def on_key(self, event: events.Key) -> None:
        """Give the label whose key was pressed."""
        if not self.has_focus:
            return
        choice = dict(self._keys()).get(event.character or "")
        if choice is not None:
            event.stop()
            self._give(value=choice)

    def _give(self, **changes: object) -> None:
        label = self.label.model_copy(update=changes)
        self._known[label.turn, label.rubric] = label
        self._show()
        self.post_message(self.Given(label))

    def action_rubric(self, by: int) -> None:
        """Ask another rubric."""
        self.at = (self.at + by) % len(self.rubrics)
        self._show()

    def action_flag(self) -> None:
        """Flag it, or no longer."""
        self._give(flag=not self.label.flag)

    def action_note(self) -> None:
        """Write a note."""
        self.add_class("-note")
        field = self.query_one(Input)
        field.value = self.label.note or ""
        field.focus()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Keep the note."""
        event.stop()
        self.remove_class("-note")
        self.focus()
        self._give(note=event.value.strip() or None)

    def action_clear(self) -> None:
        """Take the label back."""
        if self.has_focus:
            self._give(value=None, note=None, flag=False)

    def action_next(self) -> None:
        """Go to the next conversation."""
        self.post_message(self.NextWanted())

    def action_close(self) -> None:
        """Leave the note, or stop labelling."""
        if self.has_class("-note"):
            self.remove_class("-note")
            self.focus()
            return
        self.remove_class("-open")
        self.post_message(self.Closed())


def _told(key: str, choice: str, *, given: bool) -> str:
    """Return a choice with its key; the one that was given has a mark."""
    name = key if key == choice else f"{key} {shown(choice, newlines=False)}"
    return f"\u25b6{name}" if given else name
