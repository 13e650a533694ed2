"""What an algorithm is: rows in, an adapter out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

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
