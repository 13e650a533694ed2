"""What two replies have in common, sentence by sentence."""

from __future__ import annotations

import re
from difflib import SequenceMatcher

Span = tuple[int, int]
_SENTENCE = re.compile(r"[^.!?\n]+(?:[.!?]+[\"')\]\u201d\u2019]*|\n+|$)\s*", re.DOTALL)
_MOST = 400
"""Sentences that are compared; a longer text is compared as a whole."""


def sentences(text: str) -> list[Span]:
    """Return where the sentences of ``text`` begin and end; together they are the whole text."""
    spans: list[Span] = []
    last = 0
    for match in _SENTENCE.finditer(text):
        spans.append((last, match.end()))
        last = match.end()
    if last < len(text):
        spans.append((last, len(text)))
    return spans


def changed(left: str, right: str) -> tuple[list[Span], list[Span]]:
    """Return the sentences that only ``left`` has and those that only ``right`` has."""
    ours, theirs = sentences(left), sentences(right)
    if len(ours) > _MOST or len(theirs) > _MOST:
        whole = left != right
        return ([(0, len(left))] if whole and left else []), ([(0, len(right))] if whole and right else [])
    a = [_plain(left[s:e]) for s, e in ours]
    b = [_plain(right[s:e]) for s, e in theirs]
    gone: list[Span] = []
    come: list[Span] = []
    for tag, i1, i2, j1, j2 in SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
        if tag != "equal":
            gone += ours[i1:i2]
            come += theirs[j1:j2]
    return gone, come


def _plain(sentence: str) -> str:
    return " ".join(sentence.lower().split())
