"""The two games: who says what without a model, and how a round stands."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from influence_cli.api import Environment, Episode, Message, Role, environment_parts

HERE = Path(__file__).resolve().parent
_WORD = re.compile(r"[a-z]+")
_PRICE = re.compile(r"\d[\d,.]*")


class QuestionsRound(Episode):
    """The user answers yes or no by what is written in the profile."""

    @property
    def thing(self) -> str:
        """What the user thinks of."""
        return str(self.record.profile["thing"])

    def spoken(self, role: Role, state: str, messages: Sequence[Message]) -> str | None:
        """Return the user's answer to the last question."""
        if role != "user":
            return None
        asked = set(_WORD.findall(messages[-1].text.lower()))
        if asked & set(str(self.record.profile["true_of_it"]).split()):
            return "Yes."
        if asked & set(str(self.record.profile["not_true_of_it"]).split()):
            return "No."
        return "I cannot say; ask about its kind, its size, or what it is for."

    def judged(self, role: Role, state: str, messages: Sequence[Message]) -> Mapping[str, float] | None:
        """Return how the round stands: guessed or not, and the fewer questions the better."""
        guessed = self.thing.lower() in messages[-1].text.lower()
        if role == "transition":
            return {"guessed" if guessed else "on": 1.0}
        if role == "preference":
            questions = sum(message.speaker == "agent" for message in messages)
            return {str(max(2, 11 - questions) if guessed else 1): 1.0}
        return {"0": 1.0}


class HaggleRound(Episode):
    """The seller comes down by a share of the difference, never below what the car is worth to them."""

    def spoken(self, role: Role, state: str, messages: Sequence[Message]) -> str | None:
        """Return the seller's answer to the last offer."""
        if role != "user":
            return None
        asked, _ = self._standing(messages)
        offer = _price(messages[-1].text)
        if offer is None:
            return f"Make me an offer. I am at {asked}."
        return f"{offer} is too little. I could do {asked}."

    def judged(self, role: Role, state: str, messages: Sequence[Message]) -> Mapping[str, float] | None:
        """Return whether there is a deal, and how much of what there was to win the buyer has."""
        asked, floor = self._standing(messages)
        offer = _price(messages[-1].text)
        deal = offer is not None and offer >= asked
        if role == "transition":
            return {"deal" if deal else "on": 1.0}
        if role == "preference":
            first = int(str(self.record.profile["price"]))
            won = (first - min(offer or first, first)) / max(1, first - floor) if deal else 0.0
            return {str(1 + round(9 * min(1.0, won))): 1.0}
        return {"0": 1.0}

    def _standing(self, messages: Sequence[Message]) -> tuple[int, int]:
        """Return what the seller asks now, and the least they would take."""
        asked, floor = int(str(self.record.profile["price"])), int(str(self.record.profile["floor"]))
        for message in messages:
            offer = _price(message.text) if message.speaker == "agent" else None
            if offer is not None and offer < asked:
                asked = max(floor, int(round(asked - 0.35 * (asked - offer), -1)))
        return asked, floor


class TwentyQuestions(Environment):
    """The agent finds out what the user thinks of."""

    episode_class = QuestionsRound

    def __init__(self, options: Any) -> None:
        """Read the YAML beside this file."""
        super().__init__(*environment_parts(HERE / "twenty-questions"))


class CarHaggling(Environment):
    """Buy a used car for less."""

    episode_class = HaggleRound

    def __init__(self, options: Any) -> None:
        """Read the YAML beside this file."""
        super().__init__(*environment_parts(HERE / "car-haggling"))


def _price(text: str) -> int | None:
    """Return the last number of three digits or more in a text."""
    numbers = [int(found.replace(",", "").replace(".", "")) for found in _PRICE.findall(text) if len(found) >= 3]
    return numbers[-1] if numbers else None
