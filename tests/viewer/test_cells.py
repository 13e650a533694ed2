"""Hostile text is harmless and keeps its columns."""

import unicodedata
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len, get_character_cell_size

from influence_cli.viewer.cells import clipped, fitted, shown, width, wrapped

from .conftest import NASTY

ANY = st.text(alphabet=st.characters(), max_size=80)
EVIL = st.lists(
    st.sampled_from(
        ["\x1b[31m", "\x1b]0;t\x07", "\x9b2J", "\u202e", "\u200d", "\u200b", "\x00", "\U0001f468", "\U0001f3fd", "\U0001f1e9", "\ufe0f",
         "\u0301", "\u0345", "\U000e0041", "\U000e0101", "\u3000", "\u65e5", "\u0915\u094d\u0937", "\u1100\u1161", "[bold]", "\r", "\n", "\t", "a b"]
    ),
    max_size=12,
).map("".join)  # fmt: skip


def harmless(text: str, *, newlines: bool) -> bool:
    return all(c == "\n" if unicodedata.category(c) == "Cc" else c.isprintable() for c in text) and (
        newlines or "\n" not in text
    )


@given(ANY | EVIL)
def test_nothing_that_moves_a_cursor_or_hides_is_left(text):
    assert harmless(shown(text), newlines=True)
    assert harmless(shown(text, newlines=False), newlines=False)


@given(ANY | EVIL)
def test_a_text_is_as_wide_as_its_characters(text):
    seen = shown(text, newlines=False)
    assert cell_len(seen) == width(seen) == sum(map(get_character_cell_size, seen))


@given(ANY | EVIL)
def test_showing_twice_changes_nothing(text):
    assert shown(shown(text)) == shown(text)


@given(ANY | EVIL, st.integers(1, 40), st.booleans(), st.booleans())
def test_a_cell_of_a_table_is_exactly_as_wide_as_its_column(text, cells, right, end):
    assert cell_len(fitted(shown(text, newlines=False), cells, right=right, end=end)) == cells


@given(ANY | EVIL, st.integers(2, 40))
def test_wrapped_lines_fit_and_lose_nothing_but_the_spaces_they_break_at(text, cells):
    seen = shown(text)
    lines = wrapped(seen, cells)
    assert all(width(seen[a:b]) <= cells for a, b in lines)
    assert "".join(seen[a:b] for a, b in lines).replace(" ", "") == seen.replace(" ", "").replace("\n", "")
    assert all(seen[a:b] in " \n" for (_, a), (b, _) in pairwise(lines) if a != b)


@given(st.text(alphabet="ab \n", max_size=60), st.integers(1, 12))
def test_plain_and_wide_text_break_at_the_same_places(text, cells):
    from influence_cli.viewer import cells as module

    plain = wrapped(text, cells)
    slow = []
    start = 0
    for paragraph in text.split("\n"):
        slow += module._wide(text, start, start + len(paragraph), cells)
        start += len(paragraph) + 1
    assert [text[a:b].strip() for a, b in plain if text[a:b].strip()] == [
        text[a:b].strip() for a, b in slow if text[a:b].strip()
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\x1b[31mred", "\u241b[31mred"),
        ("\x00", "\u2400"),
        ("\u202eabc", "<202E>abc"),
        ("\U0001f468\u200d\U0001f469", "\U0001f468\u203f\U0001f469"),
        ("\U0001f1e9\U0001f1ea", "\u2039DE\u203a"),
        ("\U0001f44d\U0001f3fd", "\U0001f44d\u2084"),
        ("\u2764\ufe0f", "\u2764"),
        ("x\ufe0f\ufe0e", "x<FE0E>"),
        ("e\u0301", "e\u0301"),
        ("\ue000", "<E000>"),
    ],
)  # fmt: skip
def test_what_stands_for_what(text, expected):
    assert shown(text) == expected


def test_clipping_leaves_room_for_the_ellipsis():
    assert clipped("abcdef", 4) == ("abc\u2026", 4)
    assert clipped("\u65e5\u672c\u8a9e", 4) == ("\u65e5\u2026", 3)
    assert clipped("abc", 0) == ("", 0)
    assert clipped("abcdef", 4, end=True) == ("\u2026def", 4)
    assert clipped("\u65e5\u672c\u8a9e", 4, end=True) == ("\u2026\u8a9e", 3)


def test_a_megabyte_is_wrapped_in_a_moment():
    import time

    started = time.process_time()
    assert len(wrapped(shown(NASTY["long"]), 80)) == 12_500
    assert time.process_time() - started < 1.0
