"""What workers tell screens: plain data, made on any thread, handled on the screen's."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from textual.message import Message

from influence_cli.store.conversation import StoredConversation
from influence_cli.store.trajectory_table import Histogram
from influence_cli.viewer.run_list import RunLine

if TYPE_CHECKING:
    from influence_cli.viewer.prompts import Prompt


@dataclass
class RunsFound(Message):
    """The list of runs was read."""

    runs: list[RunLine]


@dataclass
class TroubleMet(Message):
    """Something could not be read or done; ``text`` is one line for a person."""

    text: str


@dataclass
class FieldsRead(Message):
    """Which fields the run's table has."""

    names: list[str]
    state: str


@dataclass
class NumbersRead(Message):
    """The conversations that a query finds, in order; ``seconds`` is what it took."""

    numbers: array[int]
    seconds: float
    keep: bool = False


@dataclass
class RowsRead(Message):
    """Rows that a table wanted."""

    first: int
    rows: Sequence[Sequence[str]]
    generation: int


@dataclass
class IndexGrew(Message):
    """The full-text index holds this share of the messages; 1: all."""

    share: float


@dataclass
class FacetsRead(Message):
    """What adds up over the conversations that a query finds; parts may still be missing."""

    summary: dict[str, Any] = field(default_factory=dict)
    facets: dict[str, list[tuple[str, int]]] = field(default_factory=dict)
    histograms: dict[str, Histogram] = field(default_factory=dict)


@dataclass
class ConversationRead(Message):
    """A conversation was read, or read again because it grew."""

    conversation: StoredConversation
    grown: bool = False


@dataclass
class PromptRendered(Message):
    """What models were asked is known again."""

    prompt: Prompt


@dataclass
class RunChanged(Message):
    """The run was written to, or is held by another process than before, or by none."""

    state: str
    grew: bool
