"""Who hears how the work of shards goes; made by whoever talks with a person."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from influence_cli.simulation.tally import Tally


@dataclass(frozen=True)
class Scored:
    """How far the shards of a sitting of scoring are: scores asked for, and how many shards of all are at their end."""

    done: int
    ended: int
    shards: int


class Listener(Protocol):
    """Hears of a sitting in shards; used from one event loop."""

    def say(self, text: str) -> None:
        """Hear what a person may want to know."""
        ...

    def warn(self, text: str) -> None:
        """Hear what a person has to know."""
        ...

    async def follow(self, tally: Tally, notes: Mapping[str, str]) -> None:
        """Show how far a simulation is, under headings and their texts, until cancelled."""
        ...

    async def count(self, look: Callable[[], Scored]) -> None:
        """Show how far scoring is, which ``look`` says, until cancelled."""
        ...

    def ended(self, tally: Tally) -> None:
        """Hear what a simulation came to."""
        ...
