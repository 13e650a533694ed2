"""Whether two texts say the same in nearly the same words."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

LIMIT = 0.4
"""Share of three-word sequences of the shorter text that both may have."""
_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)?")

Grams = frozenset[tuple[str, ...]]


def grams(text: str) -> Grams:
    """Return the three-word sequences of a text (of a shorter text, all its words)."""
    words = _WORD.findall(text.lower())
    if len(words) < 3:
        return frozenset({tuple(words)}) if words else frozenset()
    return frozenset(zip(words, words[1:], words[2:], strict=False))


def overlap(a: Grams, b: Grams) -> float:
    """Return the share, from 0 to 1, of the smaller set that both have."""
    return len(a & b) / min(len(a), len(b)) if a and b else 0.0


class Originals:
    """Texts accepted so far; :meth:`nearest` finds what a new one repeats."""

    def __init__(self, texts: Iterable[tuple[str, str]] = ()) -> None:
        self._index: dict[tuple[str, ...], list[int]] = {}
        self._known: list[tuple[str, Grams]] = []
        for name, text in texts:
            self.add(name, text)

    def add(self, name: str, text: str) -> None:
        """Remember a text under ``name``."""
        found = grams(text)
        for gram in found:
            self._index.setdefault(gram, []).append(len(self._known))
        self._known.append((name, found))

    def nearest(self, text: str) -> tuple[str, float] | None:
        """Return the name of the text with the largest overlap, and that overlap; None if nothing is shared."""
        return max(self._overlaps(grams(text)), key=lambda pair: pair[1], default=None)

    def _overlaps(self, new: Grams) -> Iterator[tuple[str, float]]:
        for place in {place for gram in new for place in self._index.get(gram, ())}:
            name, known = self._known[place]
            yield name, overlap(new, known)
