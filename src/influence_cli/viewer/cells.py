"""Text of models made fit for a grid of cells: harmless, and as wide as every terminal thinks it is.

Terminals disagree about sequences: a family of emoji joined by zero-width joiners is two cells in one and six in another.
So :func:`shown` takes sequences apart and makes their glue visible; what it returns is as wide as its characters are one
by one.

Invariant: :func:`shown` returns printable characters only (and line feeds where asked for), and
``width(shown(text)) == sum(width(character) for character in shown(text))``.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache

from rich.cells import get_character_cell_size

from influence_cli.sanitize import visible

_MOST_MARKS = 3
_JOINER = "\u203f"
_TONES = dict(zip("\U0001f3fb\U0001f3fc\U0001f3fd\U0001f3fe\U0001f3ff", "\u2082\u2083\u2084\u2085\u2086", strict=True))
_MARK = (
    "\u0300-\u036f\u0483-\u0489\u0591-\u05bd\u0610-\u061a\u064b-\u065f"
    "\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f"
)
_SEQUENCE = re.compile(
    "(?P<flag>[\U0001f1e6-\U0001f1ff]+)"
    "|(?P<tone>[\U0001f3fb-\U0001f3ff])"
    "|(?P<joiner>[\u200c\u200d])"
    "|(?P<selector>[\ufe00-\ufe0f\U000e0100-\U000e01ef])"
)
_MANY_MARKS = re.compile(f"[{_MARK}]{{{_MOST_MARKS + 1},}}")
_SPACES = re.compile("[\u00a0\u1680\u2000-\u200a\u202f\u205f]")
_LONE_MARK = re.compile(f"(?:^|(?<=[\\s\u2400-\u2421>\u203f]))(?=[{_MARK}])", re.MULTILINE)


def shown(text: str, *, newlines: bool = True) -> str:
    """Return ``text`` with everything that could move a cursor, hide or misalign as visible symbols.

    With ``newlines=False`` it is one line.
    """
    seen = visible(text, newlines=newlines)
    if seen.isascii():
        return seen
    seen = _SEQUENCE.sub(_taken_apart, _SPACES.sub(" ", seen).replace("\u3000", "  "))
    seen = _MANY_MARKS.sub(_counted, seen)  # only now: what stood between marks may be gone
    if not seen.replace("\n", "").isprintable():
        seen = "".join(c if c.isprintable() or c == "\n" else f"<{ord(c):04X}>" for c in seen)
    seen = _LONE_MARK.sub("\u25cc", seen)
    return seen if width(seen) == sum(map(get_character_cell_size, seen)) else _one_by_one(seen)


def _taken_apart(match: re.Match[str]) -> str:
    text = match.group()
    match match.lastgroup:
        case "flag":
            return "\u2039" + "".join(chr(ord(c) - 0x1F1E6 + ord("A")) for c in text) + "\u203a"
        case "tone":
            return _TONES[text]
        case "joiner":
            return _JOINER
        case _:
            usual = text in "\ufe0e\ufe0f" and match.start() > 0 and not _is_selector(match.string[match.start() - 1])
            return "" if usual else f"<{ord(text):04X}>"


def _counted(match: re.Match[str]) -> str:
    marks = match.group()
    return f"{marks[:_MOST_MARKS]}<+{len(marks) - _MOST_MARKS}>"


def _is_selector(character: str) -> bool:
    return "\ufe00" <= character <= "\ufe0f" or "\U000e0100" <= character <= "\U000e01ef"


def _one_by_one(text: str) -> str:
    """Return ``text`` with characters that change width in company spelt out."""
    found: list[str] = []
    for character in text:
        if get_character_cell_size(character) == 0 and not unicodedata.category(character).startswith("M"):
            found.append(f"<{ord(character):04X}>")
        else:
            found.append(character)
    joined = "".join(found)
    if width(joined) == sum(map(get_character_cell_size, joined)):
        return joined
    return "".join(c if c.isascii() or get_character_cell_size(c) else f"<{ord(c):04X}>" for c in joined)


def width(text: str) -> int:
    """Return how many cells ``text`` takes; line feeds take none."""
    from rich.cells import cell_len

    return len(text) if text.isascii() and "\n" not in text else sum(cell_len(line) for line in text.split("\n"))


@lru_cache(maxsize=4096)
def fitted(text: str, cells: int, *, right: bool = False, end: bool = False) -> str:
    """Return one line of exactly ``cells`` cells: ``text`` (shown already) cut as :func:`clipped` does, or padded."""
    taken = width(text)
    if taken > cells:
        text, taken = clipped(text, cells, end=end)
    space = " " * (cells - taken)
    return space + text if right else text + space


def clipped(text: str, cells: int, *, end: bool = False) -> tuple[str, int]:
    """Return ``text`` cut to at most ``cells`` cells with an ellipsis, and how many it takes.

    With ``end`` it is cut in front: of the name of a run the last word is the one that is remembered.
    """
    if cells <= 0:
        return "", 0
    if end:
        backwards, taken = clipped(text[::-1], cells)
        return backwards[::-1], taken
    taken = 0
    for position, character in enumerate(text):
        size = get_character_cell_size(character)
        if taken + size > cells - 1:
            return text[:position] + "\u2026", taken + 1
        taken += size
    return text, taken


def wrapped(text: str, cells: int) -> list[tuple[int, int]]:
    """Return where each line of ``text`` (shown already) begins and ends when it is wrapped to ``cells`` cells.

    Lines break at spaces, and inside a word only where it alone is too long. A character wider than ``cells`` has a line
    of its own.
    """
    cells = max(1, cells)
    lines: list[tuple[int, int]] = []
    start = 0
    for paragraph in text.split("\n"):
        end = start + len(paragraph)
        lines.extend(_ascii(text, start, end, cells) if paragraph.isascii() else _wide(text, start, end, cells))
        start = end + 1
    return lines


def _ascii(text: str, start: int, end: int, cells: int) -> Iterable[tuple[int, int]]:
    while end - start > cells:
        cut = text.rfind(" ", start + 1, start + cells + 1)
        stop = cut if cut > start else start + cells
        yield start, stop
        start = stop + (text[stop] == " ")
    yield start, end


def _wide(text: str, start: int, end: int, cells: int) -> Iterable[tuple[int, int]]:
    position, taken, space = start, 0, -1
    while position < end:
        size = get_character_cell_size(text[position])
        if taken + size > cells and position > start:
            if text[position] == " ":
                stop = after = position
                after += 1
            elif space > start:
                stop, after = space, space + 1
            else:
                stop = after = position
            yield start, stop
            start = position = after
            taken, space = 0, -1
            continue
        if text[position] == " ":
            space = position
        taken += size
        position += 1
    yield start, end
