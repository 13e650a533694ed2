"""What a searcher is: it proposes parameters and learns from how trials went; and what measures importance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from influence_cli.schemas.sweeps import Parameters, Study, TrialRecord


class Searcher(Protocol):
    """Proposes parameters; made by ``load()(study, options)`` and used by one thread.

    InfluenceError when it is made where the study cannot be searched so, or its storage cannot be had. The sweep's own
    records are what counts: a searcher that lost its memory is told every finished trial again.
    """

    def ask(self, number: int) -> Parameters | None:
        """Return the parameters of trial ``number``, a value for each dimension; None where no more are to be tried.

        Numbers come in order. Asked again for the same number, also by another process after a kill, the answer is the
        same, as it is in another sweep of this seed whose trials before went alike.
        """
        ...

    def report(self, number: int, step: int, value: float) -> bool:
        """Keep what the first objective came to after iteration ``step``; return whether the trial is to be given up."""
        ...

    def tell(self, trial: TrialRecord) -> None:
        """Learn how a trial ended: done with a reading for each objective, pruned, or failed. Again changes nothing.

        One that failed may be tried again, with the same parameters, and end otherwise then: that is what counts.
        """
        ...

    def close(self) -> None:
        """Release what it holds."""
        ...


class Importance(Protocol):
    """Measures how much each parameter matters; made by ``load()(options)``."""

    def measure(self, study: Study, trials: Sequence[TrialRecord], objective: int) -> Mapping[str, float]:
        """Return a share for each dimension, in all 1, for the objective of that index; nothing where none can be told.

        ``trials`` are done; their readings stand in the order of the study's objectives.
        """
        ...
