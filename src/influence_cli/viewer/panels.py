"""What stands beside an agent's reply: the rating's distribution, veto, transition, scores, labels, and what it took."""

from __future__ import annotations

from collections.abc import Sequence

from influence_cli.schemas.records import CallRecord, JudgementRecord, ScoreRecord
from influence_cli.store.conversation import StoredConversation
from influence_cli.store.labels import LabelRecord
from influence_cli.viewer import formats
from influence_cli.viewer.cells import fitted, shown, wrapped
from influence_cli.viewer.charts import bar, sparkline
from influence_cli.viewer.widgets.lines import Line, Lines, cut

_TITLES = {"preference": "rating", "veto": "veto", "transition": "transition"}
_MOST_CHOICES = 12
_NUMBER = 6


def turn_panel(conversation: StoredConversation, turn: int, cells: int, *, blind: bool, full: bool = True) -> Lines:
    """Return everything known of a turn, ``cells`` wide; ``blind`` leaves out what models said of it."""
    lines: Lines = []
    if blind:
        lines.append(cut([("scores are hidden", "faint")], cells))
    else:
        for role in ("preference", "veto", "transition"):
            judgement = conversation.judged(turn, role)
            if judgement is not None:
                lines += judgement_lines(judgement, cells, full=full)
        for score in conversation.scores:
            if score.turn == turn:
                lines += score_lines(score, cells)
    for label in conversation.labels:
        if label.turn == turn:
            lines += label_lines(label, cells)
    lines += call_lines([call for call in conversation.calls if call.turn == turn], cells)
    return lines


def judgement_lines(judgement: JudgementRecord, cells: int, *, full: bool = True) -> Lines:
    """Return a distribution as bars, with its expected value, mass and method."""
    title = _TITLES.get(judgement.role, judgement.role)
    value = (
        formats.number(judgement.expected, 3 if judgement.role == "veto" else 2)
        if judgement.expected is not None
        else ""
    )
    if judgement.role == "transition" and judgement.outcome is not None:
        value = f"\u2192 {shown(judgement.outcome, newlines=False)}"
    style = "harm" if judgement.role == "veto" and _in_upper_half(judgement) else "strong"
    note = f" {judgement.method}, mass {formats.share(judgement.mass)}"
    head: Line = [(f"{title} ", "heading"), (value, style)]
    if not judgement.usable:
        head.append((" unusable", "warning"))
    lines: Lines = [cut([*head, (note, "faint")], cells)]
    pairs = list(zip(judgement.choices, judgement.probabilities, strict=True))
    if not full and len(pairs) > 3:
        first, last = (shown(name, newlines=False) for name in (pairs[0][0], pairs[-1][0]))
        return [
            *lines,
            cut([(f"{first} ", "faint"), (sparkline([p for _, p in pairs]), "bar"), (f" {last}", "faint")], cells),
        ]
    left = min(max((len(shown(name, newlines=False)) for name, _ in pairs), default=1), 14)
    room = max(4, cells - left - _NUMBER - 2)
    fill = "harm" if judgement.role == "veto" else "bar"
    for name, probability in pairs[:_MOST_CHOICES]:
        text = fitted(shown(name, newlines=False), left, right=True)
        percent = formats.share(probability).rjust(_NUMBER)
        lines.append([(f"{text} ", "faint"), (bar(probability, room), fill), (percent, "faint")])
    return lines


def _in_upper_half(judgement: JudgementRecord) -> bool:
    """Return whether the expected value is nearer to the largest choice than to the smallest."""
    if judgement.expected is None:
        return False
    ends = [float(choice) for choice in (judgement.choices[0], judgement.choices[-1])]
    return judgement.expected > (min(ends) + max(ends)) / 2


def score_lines(score: ScoreRecord, cells: int) -> Lines:
    """Return a judge's score with its rationale; quotes are marked in the transcript."""
    value = score.failure or ("unusable" if not score.usable else formats.number(score.value))
    judge = f" {shown(score.judge, newlines=False)}, {score.method}"
    lines: Lines = [
        cut([(f"{shown(score.rubric, newlines=False)} ", "heading"), (value, "strong"), (judge, "faint")], cells)
    ]
    if score.rationale:
        text = shown(score.rationale)
        lines += [[(text[a:b], "text")] for a, b in wrapped(text, cells)]
    if score.quotes:
        quotes = "1 quote is marked" if len(score.quotes) == 1 else f"{len(score.quotes)} quotes are marked"
        lines.append(cut([(quotes, "faint")], cells))
    return lines


def label_lines(label: LabelRecord, cells: int) -> Lines:
    """Return a person's label."""
    flag = " \u2691" if label.flag else ""
    value = shown(label.value or "", newlines=False)
    head: Line = [("\u270e ", "good"), (f"{shown(label.rubric, newlines=False)} ", "heading"), (value + flag, "strong"),
                  (f" {shown(label.author, newlines=False)}", "faint")]  # fmt: skip
    lines: Lines = [cut(head, cells)]
    if label.note:
        text = shown(label.note)
        lines += [[(text[a:b], "text")] for a, b in wrapped(text, cells)]
    return lines


def call_lines(calls: Sequence[CallRecord], cells: int) -> Lines:
    """Return what each call took: tokens, latency, retries, failures."""
    lines: Lines = []
    for call in calls:
        parts = [f"{call.prompt_tokens}+{call.completion_tokens} tok", f"{call.latency:.2f} s"]
        if call.cached_tokens:
            parts[0] += f" ({call.cached_tokens} cached)"
        if call.requests > 1:
            parts.append(f"{call.requests - 1} retr{'y' if call.requests == 2 else 'ies'}")
        if call.cached:
            parts.append("from cache")
        line: Line = [(f"{call.role} ", "faint"), (", ".join(parts), "faint")]
        if call.error:
            detail = f": {shown(call.detail, newlines=False)}" if call.detail else ""
            line.append((f" {call.error}{detail}", "warning"))
        lines.append(cut(line, cells))
    return lines
