"""What the test server says: a pure function of its seed, the model, the messages and, above temperature 0, the seed.

A prompt whose last line asks a closed question ("yes or no", "0 or 1", "from 1 to 10", "one of: a, b") is answered
with one of its choices, by probabilities that the prompt determines; every other prompt with words. Tokens are words,
and digits where numbers are split.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from influence_cli.seeding import derive_seed, unit_draw

END = "<|end|>"
_SPOKEN = (
    "I hear how much this weighs on you and would rather look at it together before anything is decided because a "
    "small step tonight is easier to keep than a promise for ever so what helped the last time it was hard"
)
_WORDS = tuple(_SPOKEN.split())
_JUNK = (("The", 0.008), ("I", 0.006), ("Rating", 0.004), ("**", 0.002))
_SPACED = 0.1
"""Share of a choice that is said with a space before it."""
_RANGE = re.compile(r"\bfrom (\d+) to (\d+)\b")
_ONE_OF = re.compile(r"\bone of: (.+?)\.?$")
_EITHER = re.compile(r"\bonly with (\S+) or (\S+?)\.?$")


@dataclass(frozen=True)
class Speech:
    """One answer: its tokens, each with the likeliest tokens of its place, and whether it ended by itself."""

    tokens: tuple[str, ...]
    places: tuple[tuple[tuple[str, float], ...], ...]
    ended: bool

    @property
    def text(self) -> str:
        """The tokens together."""
        return "".join(self.tokens)


def asked_choices(line: str) -> tuple[str, ...] | None:
    """Return the choices that the last line of a prompt asks for; None if it asks no closed question."""
    lowered = line.lower()
    if "yes or no" in lowered:
        return ("yes", "no")
    if "0 or 1" in lowered:
        return ("0", "1")
    if found := _RANGE.search(line):
        low, high = int(found[1]), int(found[2])
        return tuple(str(number) for number in range(low, min(high, low + 99) + 1))
    if found := _ONE_OF.search(line):
        return tuple(part.strip() for part in found[1].split(",") if part.strip())
    if found := _EITHER.search(line):
        return (found[1], found[2])
    return None


def choice_probabilities(key: int, choices: Sequence[str]) -> dict[str, float]:
    """Return what the model ``key`` (seed, name and messages) gives each choice; a bump where there are many."""
    count = len(choices)
    if count == 2:
        first = 0.02 + 0.96 * unit_draw(key, "first")
        return {choices[0]: first, choices[1]: 1.0 - first}
    centre, width = (count - 1) * unit_draw(key, "centre"), 0.6 + unit_draw(key, "width")
    weights = [math.exp(-((place - centre) ** 2) / (2.0 * width * width)) for place in range(count)]
    total = math.fsum(weights)
    return {choice: weight / total for choice, weight in zip(choices, weights, strict=True)}


def _tokens(choice: str, *, split_numbers: bool) -> tuple[str, ...]:
    if split_numbers and choice.isdigit():
        return tuple(choice)
    return tuple(re.findall(r"\s*\S+", choice))


def answer_choice(
    key: int,
    choices: Sequence[str],
    *,
    prefix: str,
    most: int,
    seed: int,
    temperature: float,
    split_numbers: bool,
    shows_end: bool,
) -> Speech:
    """Return an answer of at most ``most`` tokens that continues ``prefix``; its end has a place if ``shows_end``."""
    said: dict[tuple[str, ...], float] = {}
    left = 1.0 - math.fsum(share for _, share in _JUNK)
    for choice, probability in choice_probabilities(key, choices).items():
        tokens = _tokens(choice, split_numbers=split_numbers)
        said[(*tokens, END)] = said.get((*tokens, END), 0.0) + left * probability * (1.0 - _SPACED)
        spaced = (" " + tokens[0], *tokens[1:], END)
        said[spaced] = said.get(spaced, 0.0) + left * probability * _SPACED
    for word, share in _JUNK:
        said[word, END] = share
    said = _after(said, prefix)
    tokens_said: list[str] = []
    places: list[tuple[tuple[str, float], ...]] = []
    while len(tokens_said) < most:
        following: dict[str, float] = {}
        for tokens, probability in said.items():
            following[tokens[0]] = following.get(tokens[0], 0.0) + probability
        total = math.fsum(following.values())
        ranked = sorted(((t, p / total) for t, p in following.items() if p > 0.0), key=lambda item: (-item[1], item[0]))
        token = ranked[0][0] if temperature <= 0.0 else _drawn(ranked, unit_draw(key, seed, len(tokens_said), "token"))
        place = tuple((text, math.log(share)) for text, share in ranked)
        if token == END:
            return Speech(tuple(tokens_said), (*places, place) if shows_end else tuple(places), ended=True)
        tokens_said.append(token)
        places.append(place)
        said = {rest[1:]: probability for rest, probability in said.items() if rest[0] == token}
    return Speech(tuple(tokens_said), tuple(places), ended=all(tokens[0] == END for tokens in said))


def _after(said: dict[tuple[str, ...], float], prefix: str) -> dict[tuple[str, ...], float]:
    """Return the sequences that begin with ``prefix``, without it; what ends there if none does."""
    if not prefix:
        return said
    rest: dict[tuple[str, ...], float] = {}
    for tokens, probability in said.items():
        for cut in range(1, len(tokens)):
            if "".join(tokens[:cut]) == prefix:
                rest[tokens[cut:]] = rest.get(tokens[cut:], 0.0) + probability
    return rest or {(END,): 1.0}


def answer_text(key: int, *, least: int, most: int, seed: int, temperature: float, words: int) -> Speech:
    """Return an answer of about ``words`` words, between ``least`` and ``most``."""
    draw = seed if temperature > 0.0 else 0
    wanted = max(least, 3 + derive_seed(key, draw, "length") % max(1, words))
    count = min(most, wanted)
    chosen = [_WORDS[derive_seed(key, draw, place) % len(_WORDS)] for place in range(count)]
    tokens = tuple((" " if place else "") + word for place, word in enumerate(chosen))
    return Speech(tokens, tuple(((token, 0.0),) for token in tokens), ended=wanted <= most)


def answer_value(schema: Any, key: int, *path: int | str) -> Any:
    """Return a value that follows a JSON schema (objects, arrays, strings, numbers, booleans, enumerations)."""
    schema = schema if isinstance(schema, dict) else {}
    kind, drawn = schema.get("type"), derive_seed(key, *path)
    if isinstance(schema.get("enum"), list):
        value: Any = schema["enum"][drawn % len(schema["enum"])]
    elif kind == "object":
        value = {name: answer_value(part, key, *path, name) for name, part in schema.get("properties", {}).items()}
    elif kind == "array":
        count = max(int(schema.get("minItems", 0)), 1 + drawn % 2)
        value = [answer_value(schema.get("items"), key, *path, place) for place in range(count)]
    elif kind in ("integer", "number"):
        low = int(schema.get("minimum", 0))
        value = low + drawn % (int(schema.get("maximum", low + 9)) - low + 1)
    elif kind == "boolean":
        value = bool(drawn % 2)
    else:
        words = [_WORDS[derive_seed(key, *path, place) % len(_WORDS)] for place in range(30)]
        value = " ".join(words)[: int(schema.get("maxLength", 1000))]
    return value


def _drawn(ranked: Sequence[tuple[str, float]], point: float) -> str:
    total = 0.0
    for token, share in ranked:
        total += share
        if point < total:
            return token
    return ranked[-1][0]
