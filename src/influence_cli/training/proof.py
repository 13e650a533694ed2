"""Proof that the model which speaks is the one that was trained.

Concept: the same questions are put to the agent's backend with the adapter of this iteration and with that of the
iteration before. Where a backend reads probabilities, an adapter that is in use gives other ones; equal ones to the
last digit mean that it is not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from influence_cli.backends.protocol import Backend
from influence_cli.errors import CallFailedError, InfluenceError
from influence_cli.schemas.messages import ChatMessage
from influence_cli.schemas.requests import ChoiceRequest
from influence_cli.training.rows import read_training_rows

_QUESTIONS = 4
_WORDS = 6
_LOOKED_AT = 64

Question = tuple[tuple[ChatMessage, ...], tuple[str, ...]]
"""A prompt that was trained on, and beginnings of replies to it and to others."""


async def prove_served(backend: Backend, rows: Path, before: str | None, now: str) -> dict[str, Any]:
    """Return how far the adapter ``now`` answers otherwise than ``before``: ``{"served": ..., "difference": ...}``.

    ``served`` is None where the backend shows no probabilities, or refused. Raises InfluenceError if every answer is the
    same.
    """
    if not backend.capabilities.logprobs:
        return {"served": None, "why": "the backend shows no probabilities"}
    difference = 0.0
    asked = 0
    for messages, choices in questions(rows):
        try:
            answers = [
                await backend.choose(
                    ChoiceRequest(role="agent", messages=messages, choices=choices, adapter=adapter, draws=1)
                )
                for adapter in (before, now)
            ]
        except CallFailedError as error:
            return {"served": None, "why": f"{error.kind}: {error}"[:200]}
        if answers[0].method == "sampled":
            return {"served": None, "why": "the backend shows no probabilities"}
        old, new = ([*answer.probabilities, answer.mass] for answer in answers)
        difference = max(difference, *(abs(a - b) for a, b in zip(old, new, strict=True)))
        asked += 1
    if asked and difference == 0.0:
        raise InfluenceError(
            f"The backend does not use the adapter {now}: with and without it, its answers are the same.",
            hint="Check that the agent's backend serves adapters (`influence plugins show`).",
        )
    return {"served": True if asked else None, "questions": asked, "difference": difference}


def questions(rows: Path) -> Iterator[Question]:
    """Yield up to four prompts of training rows, each with the beginnings of two replies as choices."""
    found: list[tuple[tuple[ChatMessage, ...], str]] = []
    for row in islice(read_training_rows(rows), _LOOKED_AT):
        if row.desirable is not False and not row.tools:
            begun = " ".join(row.messages[row.learnt[-1]].content.split()[:_WORDS])
            if begun:
                found.append((row.messages[: row.learnt[-1]], begun))
    yield from islice(_with_others(found), _QUESTIONS)


def _with_others(found: Sequence[tuple[tuple[ChatMessage, ...], str]]) -> Iterator[Question]:
    for messages, begun in found:
        other = next((text for _, text in found if text != begun), "Yes.")
        if other != begun:
            yield messages, (begun, other)
