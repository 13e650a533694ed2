"""When a reply is over."""

from __future__ import annotations

from collections.abc import Callable, Set
from typing import Literal

from influence_transformers.engine.sequences import TextTask

Ending = tuple[str, Literal["stop", "length"]]


def finished(
    generated: list[int], task: TextTask, ending: Set[int], decode: Callable[[list[int]], str]
) -> Ending | None:
    """Return the reply's text and why it is over, or None while it goes on."""
    count = len(generated)
    if generated[-1] in ending:
        return decode(generated[:-1]), "stop"
    if task.stop and count >= task.min_tokens:
        recent = decode(generated[-(max(map(len, task.stop)) + _MARGIN) :])
        if any(stop in recent for stop in task.stop):
            text = decode(generated)
            places = [at for stop in task.stop if (at := text.find(stop)) >= 0]
            if places:
                return text[: min(places)], "stop"
    if count >= task.max_tokens:
        return decode(generated), "length"
    return None


_MARGIN = 8
"""Tokens decoded beyond a stop string's length: a character may be spread over several tokens."""
