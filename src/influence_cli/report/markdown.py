"""Reports and comparisons as Markdown, from their documents."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from influence_cli.report import wording
from influence_cli.sanitize import visible

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|!~&$]|:(?=//)|(?<=www)\.)", re.IGNORECASE)
"""What means something wherever it stands; bare addresses become links."""
_AT_START = re.compile(r"(?P<blanks> *)(?:(?P<sign>[-+=:])|(?P<number>\d+)(?P<mark>[.)]))?")
"""What means something at the start of a line: blanks, a list's mark, a heading's or a table's line."""
_NO_BREAK = "\u00a0"


def report_markdown(document: Mapping[str, Any]) -> str:
    """Return a report as Markdown; figures are tables here."""
    lines = [f"# {markdown_safe(', '.join(run['label'] for run in document['runs']))}", "", *_measured(document)]
    lines += ["## Examples", "", *_examples(document)]
    return "\n".join(lines).rstrip() + "\n"


def measured_markdown(document: Mapping[str, Any]) -> str:
    """Return what a report measured as Markdown, without title and examples; its headings are of the third level."""
    lines = [f"#{line}" if line.startswith("## ") else line for line in _measured(document)]
    return "\n".join(lines).rstrip() + "\n"


def _measured(document: Mapping[str, Any]) -> list[str]:
    several = [c for c in ("environment", "population", "cue", "scenario") if wording.several_groups(document, c)]
    parts: list[tuple[str, Iterable[dict[str, Any] | None]]] = [
        ("By iteration", [wording.estimates_table(document, "all", "all")]),
        *((title, [wording.contrast_table(document, kind)]) for kind, title in wording.KINDS.items()),
        *((f"By {column}", [wording.estimates_table(document, column)]) for column in several),
        ("Preference shift", [wording.shift_table(document)]),
        ("How many conversations it takes", [wording.power_table(document)]),
        ("What failed", [wording.failure_table(document), wording.judgement_table(document)]),
        ("Calls, tokens and cost", [wording.call_table(document)]),
    ]
    method = document["method"]
    lines = [f"95 % intervals: {method['intervals']}. Correction: {method['correction']}.", ""]
    lines += [f"Reported iteration: {method['iteration']}.", "", *_table(wording.overview_table(document))]
    lines += [line for note in wording.without_gap(document) for line in (markdown_safe(note), "")]
    for title, tables in parts:
        kept = [table for table in tables if table is not None]
        if kept:
            lines += [f"## {title}", ""]
            lines += [line for table in kept for line in _table(table)]
    return lines


def comparison_markdown(document: Mapping[str, Any]) -> str:
    """Return a comparison as Markdown."""
    first, second = document["sides"]
    lines = [f"# {markdown_safe(_side(second))} less {markdown_safe(_side(first))}", "", pairing(document), ""]
    lines += _table(difference_table(document))
    changed = changed_table(document)
    if changed is not None:
        lines += ["## Conversations that changed most", "", *_table(changed)]
    return "\n".join(lines).rstrip() + "\n"


def pairing(document: Mapping[str, Any]) -> str:
    """Return how the sides were compared, in a sentence."""
    shared = document["shared_initial_states"]
    if document["paired"]:
        return f"Paired by initial state: {shared:,} are on both sides."
    return f"Unpaired: too few initial states are on both sides ({shared:,}), so all conversations are compared."


def difference_table(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the differences of all measures."""
    names = wording.titles(document)
    digits = {measure["id"]: wording.digits_of(measure) for measure in document["measures"]}
    rows = []
    for row in document["differences"]:
        d = digits[row["measure"]]
        figures = [wording.number(value, d) for value in (*row["means"], row["value"])]
        told = (wording.interval(row, d), wording.number(row["effect"]), wording.p_value(row["p_corrected"]))
        rows.append((names[row["measure"]], row["population"], *figures, *told, wording.needed(row["needed"])))
    head = ("measure", "population", "first", "second", "difference", "95 % interval", "g", "p (Holm)", "n to see it")
    return wording.table(head, rows, "Differences, second less first", 2)


def changed_table(document: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the initial states that changed most; None without pairs."""
    names = wording.titles(document)
    rows = [
        (names[row["measure"]], f"{row['environment']}/{row['scenario']}/{row['initial_state']}",
         row["population"] or "\u2013", *(wording.number(value) for value in row["values"]),
         wording.number(row["difference"]))
        for row in document["most_changed"]
    ]  # fmt: skip
    head = ("measure", "initial state", "population", "first", "second", "difference")
    return wording.table(head, rows, "Conversations that changed most", 3) if rows else None


def _side(side: Mapping[str, Any]) -> str:
    return f"{side['run']}, iteration {side['iteration']}"


def _table(table: Mapping[str, Any]) -> list[str]:
    align = ["---" if index < table["left"] else "---:" for index in range(len(table["head"]))]
    rows = ["| " + " | ".join(markdown_safe(cell) for cell in row) + " |" for row in (table["head"], *table["rows"])]
    return [f"*{markdown_safe(table['caption'])}*", "", rows[0], "| " + " | ".join(align) + " |", *rows[1:], ""]


def _examples(document: Mapping[str, Any]) -> Iterator[str]:
    for example in document["examples"]:
        place = f"{example['environment']}/{example['scenario']}/{example['initial_state']}"
        value = wording.number(example["value"])
        yield f"### {markdown_safe(example['run'])}: {100 * example['quantile']:.0f} % quantile, {example['measure']} {value}"
        yield ""
        yield f"{markdown_safe(place)}, iteration {example['iteration']}"
        yield ""
        for message in example["messages"]:
            told = "\n> ".join(_markdown_line(line) for line in visible(message["text"]).split("\n"))
            more = f" *({message['left_out']:,} more characters)*" if message["left_out"] else ""
            yield f"> **{message['speaker']}:** {told}{more}"
            yield ">"
        yield ""


def markdown_safe(text: object) -> str:
    """Return text of a model as Markdown that shows it and nothing else, within a line."""
    return _SPECIAL.sub(r"\\\1", visible(str(text), newlines=False))


def _markdown_line(text: str) -> str:
    """Return a line of a model's text as Markdown that shows it and nothing else, at the start of a line too."""
    start = _AT_START.match(text)
    assert start is not None  # it also matches nothing
    blanks = _NO_BREAK * len(start["blanks"])
    marked = f"\\{start['sign']}" if start["sign"] else f"{start['number']}\\{start['mark']}" if start["mark"] else ""
    return f"{blanks}{marked}{markdown_safe(text[start.end() :].rstrip(' '))}"
