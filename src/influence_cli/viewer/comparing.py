"""Two conversations side by side, as lines."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

from influence_cli.schemas.records import MessageRecord
from influence_cli.store.conversation import StoredConversation
from influence_cli.viewer import formats
from influence_cli.viewer.cells import clipped, shown, width, wrapped
from influence_cli.viewer.chat import MOST
from influence_cli.viewer.differences import Span, changed
from influence_cli.viewer.widgets.lines import Line, Lines, cut

_NARROW = 70
_NOTHING = "(nothing)"


def side_by_side(left: StoredConversation, right: StoredConversation, names: tuple[str, str], cells: int) -> Lines:
    """Return both, message by message; sentences that only one has are marked. Under 70 cells, one under the other."""
    stacked = cells < _NARROW
    room = cells if stacked else (cells - 3) // 2
    lines: Lines = []
    heads = [_figures(each, name, room) for each, name in ((left, names[0]), (right, names[1]))]
    lines += _joined(heads[0], heads[1], room, stacked=stacked)
    for one, other in _paired(left.messages, right.messages):
        lines.append([])
        lines += _messages(one, other, left, right, room, stacked=stacked)
    return lines


def _figures(conversation: StoredConversation, name: str, cells: int) -> Lines:
    rating, veto = formats.number(conversation.mean_rating), formats.number(conversation.mean_veto, 3)
    return [
        [(clipped(shown(name, newlines=False), cells, end=True)[0], "heading")],
        [(clipped(f"rating {rating}  harm {veto}  {conversation.turns} turns", cells)[0], "strong")],
    ]


def _paired(
    left: Sequence[MessageRecord], right: Sequence[MessageRecord]
) -> list[tuple[list[MessageRecord], list[MessageRecord]]]:
    """Return what was said in the same turn by the same speaker, in order."""
    places: dict[tuple[int, int], tuple[list[MessageRecord], list[MessageRecord]]] = {}
    order = {"system": 0, "agent": 1, "tool": 2, "user": 3}
    for number, messages in enumerate((left, right)):
        for message in messages:
            rank = -1 if message.turn == 0 else order[message.speaker]
            places.setdefault((message.turn, rank), ([], []))[number].append(message)
    return [places[key] for key in sorted(places)]


def _messages(
    one: list[MessageRecord],
    other: list[MessageRecord],
    left: StoredConversation,
    right: StoredConversation,
    cells: int,
    *,
    stacked: bool,
) -> Lines:
    lines: Lines = []
    for a, b in zip_longest(one, other):
        ours, theirs = (shown(each.text[:MOST]) if each else "" for each in (a, b))
        gone, come = changed(ours, theirs)
        lines += _joined(
            _message(a, ours, gone, left, cells, "removed", "\u2212"),
            _message(b, theirs, come, right, cells, "added", "+"),
            cells,
            stacked=stacked,
        )
    return lines


def _message(
    message: MessageRecord | None,
    text: str,
    spans: Sequence[Span],
    conversation: StoredConversation,
    cells: int,
    style: str,
    sign: str,
) -> Lines:
    if message is None:
        return [[(_NOTHING, "faint")]]
    head: Line = [(message.speaker, message.speaker), (f" turn {message.turn}", "faint")]
    if message.speaker == "agent" and message.turn:
        rating = conversation.judged(message.turn, "preference")
        veto = conversation.judged(message.turn, "veto")
        if rating is not None and rating.expected is not None:
            head.append((f"  rating {rating.expected:.2f}", "strong"))
        if veto is not None and veto.expected is not None:
            head.append((f"  harm {veto.expected:.3f}", "strong"))
    lines: Lines = [cut(head, cells)]
    for start, end in wrapped(text, cells - 2) if text else []:
        touched = any(a < end and b > start for a, b in spans)
        lines.append([(f"{sign} " if touched else "  ", style), *_pieces(text, start, end, spans, style)])
    for call in message.tool_calls:
        told = shown(f"calls {call.name} {call.arguments}", newlines=False)
        lines.append([("  ", "text"), (clipped(told, cells - 2)[0], "tool")])
    return lines


def _pieces(text: str, start: int, end: int, spans: Sequence[Span], style: str) -> Line:
    line: Line = []
    position = start
    for first, last in spans:
        if last <= position or first >= end:
            continue
        if first > position:
            line.append((text[position:first], "text"))
        line.append((text[max(first, position) : min(last, end)], style))
        position = min(last, end)
    if position < end:
        line.append((text[position:end], "text"))
    return line


def _joined(left: Lines, right: Lines, cells: int, *, stacked: bool) -> Lines:
    if stacked:
        return [*left, *right]
    lines: Lines = []
    one: Line
    other: Line
    for one, other in zip_longest(left, right, fillvalue=[]):
        taken = sum(width(text) for text, _ in one)
        lines.append([*one, (" " * max(0, cells - taken), "text"), (" \u2502 ", "faint"), *other])
    return lines
