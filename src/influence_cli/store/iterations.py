"""What the iterations of a run come to: the values that charts over iterations are drawn from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from influence_cli.schemas.records import Split
from influence_cli.store.pairs import iterations_of
from influence_cli.store.reader import RunReader

SPLITS: tuple[Split, ...] = ("train", "heldout")


@dataclass(frozen=True)
class IterationValues:
    """Parallel lists over the complete conversations of one iteration."""

    iteration: int
    ratings: list[float | None]
    vetoes: list[float | None]
    populations: list[str | None]
    scenarios: list[str]
    states: list[str]


def compared_splits(run: RunReader) -> tuple[Split, ...]:
    """Return the splits that the first and the last iteration both have, or all if they share none.

    A training run ends with held-out conversations alone: what is drawn over iterations is of people who are alike.
    """
    sql = (
        "SELECT DISTINCT e.split FROM episode e JOIN trajectory t ON t.episode_id = e.id"
        " WHERE e.iteration = ? AND t.status = 'complete'"
    )
    numbers = iterations_of(run)
    first, last = ({row[0] for row in run.rows(sql, (n,))} for n in (numbers[0], numbers[-1])) if numbers else ((), ())
    return tuple(split for split in SPLITS if split in first and split in last) or SPLITS


def iteration_values(run: RunReader, splits: Sequence[Split] = SPLITS) -> Iterator[IterationValues]:
    """Yield the values of each iteration, in order, over conversations of ``splits``."""
    sql = (
        "SELECT t.mean_rating, t.mean_veto, e.population, e.environment || '/' || e.scenario, e.initial_state"  # noqa: S608
        " FROM episode e JOIN trajectory t ON t.episode_id = e.id WHERE e.iteration = ? AND t.status = 'complete'"
        f" AND e.split IN ({', '.join('?' * len(splits))})"
    )
    for number in iterations_of(run):
        columns: tuple[list[Any], ...] = ([], [], [], [], [])
        for row in run.rows(sql, (number, *splits)):
            for column, value in zip(columns, row, strict=True):
                column.append(value)
        yield IterationValues(number, *columns)
