"""Model text cannot reach the terminal."""

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from influence_cli.sanitize import visible


@given(st.text(st.characters()))
def test_nothing_that_controls_a_terminal_is_left(text):
    shown = visible(text, newlines=False)
    assert not [c for c in shown if unicodedata.category(c) in {"Cc", "Cs", "Zl", "Zp"} or c in "\u202e\u2066\u200b"]


def test_escapes_become_symbols():
    assert visible("\x1b[31mred\x07") == "\u241b[31mred\u2407"
    assert visible("a\u202eb") == "a<202E>b"


def test_newlines_are_kept_or_shown():
    assert visible("a\r\nb\tc") == "a\nb    c"
    assert visible("a\nb", newlines=False) == "a\u2424b"


@given(st.text(st.characters(categories=["L", "N"])))
def test_ordinary_text_is_left_alone(text):
    assert visible(text) == text
