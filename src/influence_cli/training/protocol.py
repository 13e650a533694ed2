"""What an algorithm is: rows in, an adapter out; and what a tracker is: figures in, kept where people look at them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, runtime_checkable

from pydantic import Field, JsonValue

from influence_cli.schemas.frozen import Frozen
from influence_cli.schemas.training import RowsWanted, TrainingJob, TrainingOutcome

Told = Callable[[float, str], None]
"""Hears how far training is, 0 to 1, and a few words on it."""


class Algorithm(Protocol):
    """Learns from the rows of one iteration; made by ``load()(options)`` and used by one thread."""

    @property
    def wants(self) -> RowsWanted:
        """What the rows file of a job holds: rows, or pairs for ``pairs``."""
        ...

    def train(self, job: TrainingJob, told: Told) -> TrainingOutcome:
        """Return the adapter that came of ``job``, written under ``job.folder``.

        May be called again for a job that was broken off: what stands in the folder is taken up or overwritten, never
        trusted half-written. InfluenceError where the job cannot be done: rows that nothing can be learnt from, a loss
        that is no number, memory or disk that does not suffice, an adapter that belongs to another base.
        """
        ...


@runtime_checkable
class ChecksBase(Protocol):
    """What an algorithm may say besides: which models it cannot train, before conversations with one are paid for."""

    def check_base(self, base: str) -> None:
        """Raise InfluenceError if nothing can be trained on ``base`` (``backend:model``); loads and fetches nothing."""
        ...


class TrackedRun(Frozen):
    """What a tracker is told of a run before its first figure."""

    name: str = Field(description="The run's identifier.")
    folder: str = Field(description="Where the tracker may keep what it must remember; inside the run.")
    config: dict[str, JsonValue] = Field(description="The run's manifest.")
    resumed: bool = Field(description="Whether the run goes on after it was broken off.")


class Example(Frozen):
    """A held-out conversation to look at: among the best or worst rated of its iteration."""

    title: str = Field(description="Which conversation it is.")
    reward: float = Field(description="What it is worth to selection.")
    text: str = Field(description="All that was said.")


class Tracker(Protocol):
    """Follows a training run; made by ``load()(options)``, used by one thread."""

    def start(self, run: TrackedRun) -> None:
        """Begin, or go on with, the record of ``run``; what it must remember lies in ``run.folder``."""
        ...

    def log(self, iteration: int, metrics: Mapping[str, float], examples: Sequence[Example]) -> None:
        """Keep the figures of an iteration and some of its conversations."""
        ...

    def close(self, state: str) -> None:
        """End the record: ``done``, ``stopped`` or ``failed``."""
        ...
