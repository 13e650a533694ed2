"""The same conversation twice: in two runs, or in two iterations of one.

Two conversations are a pair if environment, scenario, initial state and sample agree; where no two do (runs that number
their samples through), the first of an initial state is paired with the first, the second with the second.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import Any, Literal

from influence_cli.errors import InfluenceError
from influence_cli.store.reader import RunReader
from influence_cli.store.run_directory import RunDirectory

Measure = Literal["rating", "final", "veto"]
MEASURES: dict[Measure, str] = {"rating": "mean_rating", "final": "final_rating", "veto": "mean_veto"}
_OTHER = "other"


@dataclass(frozen=True)
class Side:
    """One side of a comparison: a run, and one iteration of it (None: all, where the run has only one)."""

    directory: RunDirectory
    iteration: int | None = None

    @property
    def name(self) -> str:
        """What a heading calls it."""
        name = self.directory.path.resolve().name
        return name if self.iteration is None else f"{name} @{self.iteration}"


@dataclass(frozen=True)
class Pairs:
    """Numbers of the conversations on both sides, and by how much the measure changed, largest loss first."""

    left: array[int]
    right: array[int]
    changes: array[float]
    scenarios: tuple[str, ...]
    states: tuple[str, ...]
    by_sample: bool = True


class PairReader:
    """Both sides of a comparison, read over one connection; use on one thread."""

    def __init__(self, run: RunReader, left: Side, right: Side) -> None:
        self.run = run
        self.left = left
        self.right = right
        self.database = "main"
        if left.directory.path.resolve() != right.directory.path.resolve():
            with RunReader(right.directory):  # its version is checked before anything of it is read
                pass
            uri = f"{right.directory.database.resolve().as_uri()}?mode=ro"
            run.rows(f"ATTACH DATABASE ? AS {_OTHER}", (uri,))
            self.database = _OTHER
        elif left.iteration == right.iteration:
            raise InfluenceError("Both sides of the comparison are the same.", hint="Name two runs or two iterations.")

    def pairs(self, measure: Measure, *, descending: bool = False) -> Pairs:
        """Return the pairs that have ``measure`` on both sides, sorted by its change."""
        exact = self._pairs(measure, "sample", by_sample=True, descending=descending)
        if exact.changes:
            return exact
        rank = "row_number() OVER (PARTITION BY environment, scenario, initial_state ORDER BY sample)"
        return self._pairs(measure, rank, by_sample=False, descending=descending)

    def _pairs(self, measure: Measure, place: str, *, by_sample: bool, descending: bool) -> Pairs:
        column = MEASURES[measure]
        sides = (("main", self.left.iteration), (self.database, self.right.iteration))
        sources = [_conversations(database, iteration, place) for database, iteration in sides]
        values = tuple(iteration for _, iteration in sides if iteration is not None)
        sql = (
            f"SELECT a.id, b.id, v.{column} - u.{column} AS change, a.scenario, a.initial_state FROM ({sources[0]}) a"  # noqa: S608
            f" JOIN ({sources[1]}) b ON b.environment = a.environment AND b.scenario = a.scenario"
            " AND b.initial_state = a.initial_state AND b.place = a.place"
            f" JOIN main.trajectory u ON u.episode_id = a.id JOIN {self.database}.trajectory v ON v.episode_id = b.id"
            f" WHERE change NOT NULL ORDER BY change {'DESC' if descending else 'ASC'}, a.id"
        )
        rows = self.run.rows(sql, values)
        return Pairs(
            left=array("q", (row[0] for row in rows)),
            right=array("q", (row[1] for row in rows)),
            changes=array("d", (row[2] for row in rows)),
            scenarios=tuple(row[3] for row in rows),
            states=tuple(row[4] for row in rows),
            by_sample=by_sample,
        )

    def unpaired(self) -> tuple[int, int]:
        """Return how many conversations each side has in all."""
        counts = []
        for side, database in ((self.left, "main"), (self.right, self.database)):
            where = "WHERE iteration = ?" if side.iteration is not None else ""
            values: tuple[Any, ...] = (side.iteration,) if side.iteration is not None else ()
            counts.append(self.run.rows(f"SELECT count(*) FROM {database}.episode {where}", values)[0][0])  # noqa: S608
        return counts[0], counts[1]


def _conversations(database: str, iteration: int | None, place: str) -> str:
    where = "" if iteration is None else " WHERE iteration = ?"
    return f"SELECT id, environment, scenario, initial_state, {place} AS place FROM {database}.episode{where}"  # noqa: S608


def iterations_of(run: RunReader) -> list[int]:
    """Return the iterations that a run has conversations of, by leaps through their index."""
    found: list[int] = []
    row = run.rows("SELECT min(iteration) FROM episode")[0]
    while row[0] is not None:
        found.append(row[0])
        row = run.rows("SELECT min(iteration) FROM episode WHERE iteration > ?", (row[0],))[0]
    return found
