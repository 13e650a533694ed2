"""A conversation laid out as a chat: who said what, quotes marked in place, tools folded, judgements beside the replies."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest

import orjson

from influence_cli.schemas.records import MessageRecord
from influence_cli.store.conversation import StoredConversation
from influence_cli.viewer import formats
from influence_cli.viewer.cells import fitted, shown, wrapped
from influence_cli.viewer.panels import label_lines, score_lines, turn_panel
from influence_cli.viewer.widgets.lines import Line, Lines, cut

WIDE = 100
"""From this width on, judgements stand beside the replies; below it, under them."""
MOST = 20_000
"""Characters of one message that are laid out; ``o`` shows the rest."""

_SIGNS = {
    "agent": ("\u25c6", "\u2503"), "user": ("\u25c7", "\u2502"), "tool": ("\u25b7", "\u250a"), "system": ("\u00a7", "\u254e"),
}  # fmt: skip


@dataclass(frozen=True)
class ChatOptions:
    """How a conversation is shown."""

    turn: int = 0
    blind: bool = False
    unfolded: bool = False
    words: tuple[str, ...] = ()


@dataclass
class Chat:
    """Lines, and where each turn begins among them."""

    lines: Lines = field(default_factory=list)
    anchors: dict[int, int] = field(default_factory=dict)


def lay_out(conversation: StoredConversation, cells: int, options: ChatOptions) -> Chat:
    """Return the whole conversation, ``cells`` wide."""
    chat = Chat(lines=_heading(conversation, cells, options))
    wide = cells >= WIDE
    side = min(46, cells * 2 // 5) if wide else 0
    left = cells - side - 3 if wide else cells
    marked = _marks(conversation, options)
    replies = _last_replies(conversation.messages)
    for position, message in enumerate(conversation.messages):
        if message.speaker == "agent" and message.turn > 0 and message.turn not in chat.anchors:
            chat.anchors[message.turn] = len(chat.lines)
        body = _message(
            message, left, options, marked.get(message.turn, ()) if message.speaker == "agent" else marked[-1]
        )
        if replies.get(message.turn) == position:
            panel = turn_panel(conversation, message.turn, side if wide else left - 4, blind=options.blind, full=wide)
            chat.lines += _beside(body, panel, left) if wide else [*body, *_under(panel)]
        else:
            chat.lines += body
        chat.lines.append([])
    chat.lines += _ending(conversation, cells, options)
    return chat


def _heading(conversation: StoredConversation, cells: int, options: ChatOptions) -> Lines:
    record = conversation.record
    facts = [record.population or "", f"cue {record.cue}" if record.cue != "none" else "", record.split]
    if record.key.iteration:
        facts.append(f"iteration {record.key.iteration}")
    line = " \u2022 ".join(shown(fact, newlines=False) for fact in facts if fact)
    lines: Lines = [[(fitted(line, cells).rstrip(), "faint")]]
    if record.profile:
        text = shown("; ".join(f"{name}: {value}" for name, value in record.profile.items()), newlines=False)
        lines += [[(text[a:b], "faint")] for a, b in wrapped(text, cells)[:4]]
    if not options.blind:
        for score in conversation.scores:
            if score.turn == 0:
                lines += score_lines(score, cells)
    for label in conversation.labels:
        if label.turn == 0:
            lines += label_lines(label, cells)
    return [*lines, []]


def _ending(conversation: StoredConversation, cells: int, options: ChatOptions) -> Lines:
    if conversation.status == "running":
        return [[("\u2026 not finished", "warning")]]
    figures = ""
    if not options.blind:
        rating, harm = formats.number(conversation.mean_rating), formats.number(conversation.mean_veto, 3)
        figures = f"; rating {rating}, harm {harm}"
    reason = (conversation.reason or "").replace("_", " ")
    state = shown(conversation.state or "", newlines=False)
    told = f"\u25a0 {conversation.status}: {reason}, state {state}{figures}"
    lines: Lines = [cut([(told, "faint")], cells)]
    if conversation.failure:
        text = shown(f"{conversation.failure}: {conversation.detail or ''}", newlines=False)
        lines += [[(text[a:b], "warning")] for a, b in wrapped(text, cells)]
    return lines


def _last_replies(messages: Sequence[MessageRecord]) -> dict[int, int]:
    return {m.turn: i for i, m in enumerate(messages) if m.speaker == "agent" and m.turn > 0}


def _marks(conversation: StoredConversation, options: ChatOptions) -> dict[int, tuple[str, ...]]:
    """Return by turn what is marked in the agent's replies: quotes of judges, and the words looked for (-1: everywhere)."""
    everywhere = tuple(shown(word) for word in options.words)
    marks: dict[int, tuple[str, ...]] = {-1: everywhere}
    turns = conversation.reply_turns()
    for turn in turns:
        quotes = (
            ()
            if options.blind
            else tuple(
                shown(quote) for score in conversation.scores if score.turn in (0, turn) for quote in score.quotes
            )
        )
        marks[turn] = (*quotes, *everywhere)
    if not options.blind:
        whole = tuple(shown(quote) for score in conversation.scores for quote in score.quotes)
        marks[-1] = (*everywhere, *whole)
    return marks


def _message(message: MessageRecord, cells: int, options: ChatOptions, marks: Iterable[str]) -> Lines:
    sign, gutter = _SIGNS[message.speaker]
    style = message.speaker
    here = message.turn == options.turn and message.speaker == "agent" and message.turn > 0
    notes = [f"turn {message.turn}" if message.turn else "before", shown(message.state, newlines=False)]
    if message.source == "scenario":
        notes.append("written beforehand")
    if message.finish_reason == "length":
        notes.append("cut at the token limit")
    told = " \u2022 ".join(notes)
    head: Line = [(f"{sign} {message.speaker}", style), (f"  {told}", "chosen" if here else "faint")]
    if here:
        head.insert(0, ("\u25b8", "chosen"))
    lines: Lines = [cut(head, cells)]
    edge = (f"{gutter} ", style)
    if message.speaker == "tool":
        return lines + _tool_result(message, cells, edge, unfolded=options.unfolded)
    for line in _text(message.text, cells - 2, marks):
        lines.append([edge, *line])
    for call in message.tool_calls:
        lines += _call(call.name, call.arguments, cells, edge, unfolded=options.unfolded)
    return lines


def _text(text: str, cells: int, marks: Iterable[str]) -> Lines:
    cut = len(text) > MOST
    seen = shown(text[:MOST] if cut else text)
    spans = _spans(seen, marks)
    lines = [_styled(seen, a, b, spans) for a, b in wrapped(seen, cells)] if seen else []
    if cut:
        lines.append([(f"\u2026 {len(text) - MOST:,} more characters: o shows them"[:cells], "warning")])
    return lines


def _spans(text: str, marks: Iterable[str]) -> list[tuple[int, int]]:
    """Return where the marks stand in ``text``, case aside, merged."""
    found: list[tuple[int, int]] = []
    low = text.lower()
    for mark in marks:
        wanted = mark.lower().strip()
        start = low.find(wanted) if len(wanted) > 1 and len(low) == len(text) else -1
        while start >= 0:
            found.append((start, start + len(wanted)))
            start = low.find(wanted, start + len(wanted))
    merged: list[tuple[int, int]] = []
    for start, end in sorted(found):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _styled(text: str, start: int, end: int, spans: Sequence[tuple[int, int]]) -> Line:
    line: Line = []
    position = start
    for first, last in spans:
        if last <= position or first >= end:
            continue
        if first > position:
            line.append((text[position:first], "text"))
        line.append((text[max(first, position) : min(last, end)], "quote"))
        position = min(last, end)
    if position < end:
        line.append((text[position:end], "text"))
    return line


def _call(name: str, arguments: object, cells: int, edge: tuple[str, str], *, unfolded: bool) -> Lines:
    told = shown(orjson.dumps(arguments, option=orjson.OPT_INDENT_2 if unfolded else None).decode(), newlines=unfolded)
    head = (
        f"\u25be calls {shown(name, newlines=False)}"
        if unfolded
        else f"\u25b8 calls {shown(name, newlines=False)} {told}"
    )
    if not unfolded:
        return [[edge, (fitted(head, cells - 2).rstrip(), "tool")]]
    return [
        [edge, (fitted(head, cells - 2).rstrip(), "tool")],
        *([edge, (told[a:b], "tool")] for a, b in wrapped(told, cells - 2)),
    ]


def _tool_result(message: MessageRecord, cells: int, edge: tuple[str, str], *, unfolded: bool) -> Lines:
    outcome = f"[{message.outcome}] " if message.outcome else ""
    if not unfolded:
        text = shown(message.text[: cells * 2], newlines=False)
        return [[edge, (fitted(f"\u25b8 {outcome}{text}", cells - 2).rstrip(), "tool")]]
    text = shown(message.text[:MOST])
    return [
        [edge, (f"\u25be {outcome}".rstrip(), "tool")],
        *([edge, (text[a:b], "tool")] for a, b in wrapped(text, cells - 2)),
    ]


def _beside(body: Lines, panel: Lines, left: int) -> Lines:
    """Return ``panel`` at the right of ``body``, which is ``left`` wide."""
    from influence_cli.viewer.cells import width

    lines: Lines = []
    one: Line
    other: Line
    for one, other in zip_longest(body, panel, fillvalue=[]):
        taken = sum(width(text) for text, _ in one)
        lines.append([*one, (" " * max(0, left - taken), "text"), (" \u2502 ", "faint"), *other])
    return lines


def _under(panel: Lines) -> Lines:
    return [[("    ", "text"), *line] for line in panel]
