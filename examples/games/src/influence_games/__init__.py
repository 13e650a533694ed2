"""Twenty questions, and haggling over a car."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from pydantic import BaseModel

from influence_cli.api import Component, Environment, hookimpl


class NoOptions(BaseModel):
    """These games have none."""


@hookimpl
def influence_environments() -> Iterable[Component[Environment]]:
    """Return both games."""
    return [
        Component(
            "twenty-questions", "Find out what the user thinks of, by questions.", _loader("TwentyQuestions"), NoOptions
        ),
        Component("car-haggling", "Buy a used car for less.", _loader("CarHaggling"), NoOptions),
    ]


def _loader(name: str) -> Callable[[], Any]:
    def load() -> Any:
        from influence_games import games

        return getattr(games, name)

    return load
