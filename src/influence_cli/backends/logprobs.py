"""From an API's top log-probabilities to a distribution over choices.

An API shows, for each position of an answer, its likeliest tokens. Tokens are not choices: "7", " 7" and "\u25817" all
say 7; "1" may be the whole of 1 or the beginning of 10. A :class:`ChoiceReading` walks the positions, gives the
probability of each token to the choice that it completes, and keeps apart what a look at the next token has to decide.

Invariant: probability is never invented: what is given to the choices, what is undecided and what lies outside add up
to at most one, and what lies outside is never spread over the choices.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from influence_cli.errors import CallFailedError
from influence_cli.schemas.requests import ChoiceMethod, Distribution, Usage

DECIDE_ABOVE = 0.005
"""Undecided probability below this is not worth another request."""

_SPACE_MARKS = str.maketrans({"\u2581": " ", "\u0120": " ", "\u010a": "\n"})
_QUOTES = "\"'`*_([{ "
_MOST_REMEMBERED = 4096

Token = tuple[str, float]
"""A token's text and its natural log-probability."""


@dataclass(frozen=True)
class Position:
    """One position of an answer: the token that was drawn, and the likeliest ones."""

    token: str
    top: tuple[Token, ...]


class ChoiceMatcher:
    """Which choices a piece of text is, or may become."""

    def __init__(self, choices: Sequence[str]) -> None:
        self.choices = tuple(choices)
        self._exact = set(choices)
        folded: dict[str, list[str]] = {}
        for choice in choices:
            folded.setdefault(choice.casefold(), []).append(choice)
        self._folded = {text: found[0] for text, found in folded.items() if len(found) == 1}
        self._distinct = len(self._folded) == len(self.choices)
        self._begins = tuple((self._fold(choice), choice) for choice in choices)
        self.longer = frozenset(c for b, c in self._begins if any(a != b and b.startswith(a) for a, _ in self._begins))
        self._memo: dict[tuple[str, str], tuple[str | None, tuple[str, ...], bool]] = {}

    def classify(self, text: str, token: str) -> tuple[str | None, tuple[str, ...], bool]:
        """Return what ``text`` becomes with ``token`` after it.

        That is: the choice that it is, if any; the longer ones that it may become; whether the token goes on with the
        word or number, so that ``text`` is not the whole of it.
        """
        known = self._memo.get((text, token))
        if known is None:
            if len(self._memo) >= _MOST_REMEMBERED:
                self._memo.clear()
            known = self._memo[text, token] = self._classify(text, _plain(token))
        return known

    def _classify(self, text: str, piece: str) -> tuple[str | None, tuple[str, ...], bool]:
        if not piece:
            return None, (), False
        alone = None if text.strip() and not piece.strip() else self.complete(text + piece)
        return alone, self.extensions(text + piece), piece[0].isalnum()

    def complete(self, text: str) -> str | None:
        """Return the choice that ``text`` is: exactly after stripping, else without regard to case if only one fits."""
        text = text.strip()
        return text if text in self._exact else self._folded.get(text.casefold())

    def extensions(self, text: str) -> tuple[str, ...]:
        """Return the choices that begin with ``text`` (white space before it aside) and are longer."""
        begin = self._fold(text.lstrip())
        return tuple(choice for folded, choice in self._begins if folded != begin and folded.startswith(begin))

    def read(self, answer: str) -> str | None:
        """Return the choice that a whole ``answer`` begins with, as a word of its own; the longest if several do."""
        text = self._fold(answer.strip().lstrip(_QUOTES))
        found = [
            (len(b), choice) for b, choice in self._begins if text.startswith(b) and not text[len(b) :][:1].isalnum()
        ]
        return max(found)[1] if found else self.complete(answer)

    def _fold(self, text: str) -> str:
        return text.casefold() if self._distinct else text


@lru_cache(maxsize=256)
def matcher_for(choices: tuple[str, ...]) -> ChoiceMatcher:
    """Return the matcher of ``choices``, made once."""
    return ChoiceMatcher(choices)


@dataclass
class _Undecided:
    """Probability of a beginning of which it is not known yet what it becomes, and its likeliest spelling."""

    probability: float
    alone: str | None
    candidates: tuple[str, ...]
    spelling: str = ""
    highest: float = 0.0


class ChoiceReading:
    """What is known of the distribution so far.

    ``whole`` are texts known to be single tokens of this tokenizer: where "10" is one, a token "1" is not the beginning
    of 10.
    """

    def __init__(self, choices: Sequence[str], *, whole: Iterable[str] = ()) -> None:
        self._matcher = matcher_for(tuple(choices))
        self._found = dict.fromkeys(choices, 0.0)
        self._undecided: dict[str, _Undecided] = {}
        self._likeliest: list[Token] = []
        self.whole: set[str] = set(whole)
        self.needed_more = False

    def look(self, positions: Sequence[Position], prefix: str = "") -> None:
        """Learn from the positions of an answer that continues ``prefix`` (empty: the whole answer).

        The first position decides ``prefix``; each later one decides what was drawn so far.
        """
        text = prefix
        for place, position in enumerate(positions):
            if place or prefix:
                node = self._undecided.pop(_key(text), None)
                if node is None:
                    return  # what was drawn is decided already
            else:
                node = _Undecided(1.0, None, self._matcher.choices)
                self._likeliest = list(position.top[:5])
            self._spread(text, node, position.top)
            if not place and not prefix:
                self.needed_more = next(self.undecided(), None) is not None
            text += _plain(position.token)

    def ends(self, prefix: str) -> None:
        """Learn that ``prefix`` is always the whole answer."""
        node = self._undecided.pop(_key(prefix), None)
        if node is not None and node.alone is not None:
            self._found[node.alone] += node.probability

    def undecided(self, above: float = DECIDE_ABOVE) -> Iterator[str]:
        """Yield the beginnings that deserve another look, the most probable first."""
        for node in sorted(self._undecided.values(), key=lambda node: -node.probability):
            if node.probability > above and node.spelling.strip():
                yield node.spelling

    @property
    def ambiguous(self) -> float:
        """The probability of beginnings that more than one choice shares and no look has decided."""
        shared = (n.probability for n in self._undecided.values() if len(n.candidates) + (n.alone is not None) > 1)
        return math.fsum(shared)

    def distribution(self, usage: Usage) -> Distribution:
        """Return the normalised distribution; CallFailedError ``unusable`` if no choice has any probability.

        What is still undecided goes to the only choice it can become, else to the choice that it already is.
        """
        found = dict(self._found)
        for node in self._undecided.values():
            if node.alone is not None:
                found[node.alone] += node.probability
            elif len(node.candidates) == 1:
                found[node.candidates[0]] += node.probability
        return make_distribution(found, "logprobs", usage, self._likeliest)

    def _spread(self, text: str, node: _Undecided, top: Sequence[Token]) -> None:
        """Give the probability of ``node``, whose text is ``text``, to what the next token makes of it."""
        begun = bool(text.strip())
        if not begun and not self.whole.issuperset(self._matcher.longer):
            self.whole.update(word for token, _ in top if (word := _plain(token).strip()) in self._found)
        classify = self._matcher.classify
        left = 1.0
        for token, logprob in top:
            alone, candidates, speaks = classify(text, token)
            if not speaks and alone is None and not candidates:
                continue  # ends here, or goes on with something else: it stays what it was
            share = math.exp(logprob) if logprob < 0.0 else 1.0  # servers round
            left -= share
            if alone is not None and (not candidates or (not begun and self.whole.issuperset(candidates))):
                self._found[alone] += node.probability * share
            elif alone is not None or candidates:
                self._add(text + _plain(token), node.probability * share, alone, candidates)
        if node.alone is not None:
            self._found[node.alone] += node.probability * max(0.0, left)

    def _add(self, text: str, probability: float, alone: str | None, candidates: tuple[str, ...]) -> None:
        """Add to what is undecided; spellings that differ by the space before them are one beginning."""
        node = self._undecided.setdefault(_key(text), _Undecided(0.0, alone, candidates))
        node.probability += probability
        if probability > node.highest:
            node.spelling, node.highest = text, probability


def make_distribution(
    found: dict[str, float],
    method: ChoiceMethod,
    usage: Usage,
    likeliest: Sequence[Token] = (),
    draws: int | None = None,
) -> Distribution:
    """Return ``found`` (probability by choice) normalised, its sum kept as mass; CallFailedError if that is zero."""
    total = math.fsum(found.values())
    if total <= 0.0:
        shown = ", ".join(repr(_plain(token)) for token, _ in likeliest)
        said = f" It would rather say {shown}." if shown else ""
        raise CallFailedError("unusable", f"The model gives none of the choices any probability.{said}", attempts=0)
    return Distribution(
        choices=tuple(found),
        probabilities=tuple(value / total for value in found.values()),
        mass=min(1.0, total),
        method=method,
        draws=draws,
        usage=usage,
    )


def count_answers(choices: Sequence[str], answers: Sequence[str], usage: Usage) -> Distribution:
    """Return the shares of ``choices`` among sampled ``answers``; the others are the mass that is missing."""
    matcher = matcher_for(tuple(choices))
    found = dict.fromkeys(choices, 0.0)
    for answer in answers:
        choice = matcher.read(answer)
        if choice is not None:
            found[choice] += 1.0 / len(answers)
    likeliest = [(answer[:20], 0.0) for answer in answers[:3]]
    return make_distribution(found, "sampled", usage, likeliest, draws=len(answers))


def _key(text: str) -> str:
    return text.lstrip() or text


def _plain(token: str) -> str:
    return token.translate(_SPACE_MARKS)
