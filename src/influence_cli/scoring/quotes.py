"""Whether what a judge quotes was said."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Any

_SAME = str.maketrans({
    "\u2018": "'", "\u2019": "'", "\u201a": "'", "\u201b": "'", "\u2032": "'", "`": "'",
    "\u201c": '"', "\u201d": '"', "\u201e": '"', "\u201f": '"', "\u2033": '"', "\u00ab": '"', "\u00bb": '"',
    "\u2010": "-", "\u2011": "-", "\u2012": "-", "\u2013": "-", "\u2014": "-", "\u2212": "-",
})  # fmt: skip
_AROUND = " \"'.,;:"


def verified_quotes(quotes: Sequence[Any], texts: Sequence[str]) -> tuple[list[str], int]:
    """Return the quotes that stand within one of ``texts``, and how many do not.

    Spaces, case, and the shapes of quotation marks, dashes and ellipses do not matter, nor punctuation at both ends.
    """
    told = [normalised(text) for text in texts]
    kept = []
    for quote in quotes:
        wanted = normalised(str(quote)).strip(_AROUND)
        if wanted and any(wanted in text for text in told):
            kept.append(str(quote).strip())
    return kept, len(quotes) - len(kept)


def normalised(text: str) -> str:
    """Return ``text`` with one kind of space, quotation mark and dash, in small letters."""
    plain = unicodedata.normalize("NFKC", text.translate(_SAME)).translate(_SAME)
    return " ".join(plain.split()).casefold()
