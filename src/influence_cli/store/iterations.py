"""What the iterations of a run come to: the values that charts over iterations are drawn from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from influence_cli.store.pairs import iterations_of
from influence_cli.store.reader import RunReader


@dataclass(frozen=True)
class IterationValues:
    """Parallel lists over the complete conversations of one iteration."""

    iteration: int
    ratings: list[float | None]
    vetoes: list[float | None]
    populations: list[str | None]
    scenarios: list[str]
    states: list[str]


def iteration_values(run: RunReader) -> Iterator[IterationValues]:
    """Yield the values of each iteration, in order."""
    sql = (
        "SELECT t.mean_rating, t.mean_veto, e.population, e.environment || '/' || e.scenario, e.initial_state"
        " FROM episode e JOIN trajectory t ON t.episode_id = e.id WHERE e.iteration = ? AND t.status = 'complete'"
    )
    for number in iterations_of(run):
        columns: tuple[list[Any], ...] = ([], [], [], [], [])
        for row in run.rows(sql, (number,)):
            for column, value in zip(columns, row, strict=True):
                column.append(value)
        yield IterationValues(number, *columns)
