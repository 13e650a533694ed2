"""The table of a run's trajectories: which there are under a query and in which order, and a few of them at a time.

Invariant: nothing here reads a message or more rows than it is asked for; a table of 100,000 conversations costs its
numbers (eight bytes each) and the rows that are in sight.
"""

from __future__ import annotations

import sqlite3
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from influence_cli.store.connection import explained
from influence_cli.store.filter_language import Node, Words, parse
from influence_cli.store.filter_sql import ALIASES, FIELDS, Field, condition, field_of, is_field
from influence_cli.store.reader import RunReader
from influence_cli.store.word_index import conversations_with

_FROM = "FROM episode e JOIN trajectory t ON t.episode_id = e.id"
_SEARCH = "search"
_SOME_PROFILES = "SELECT profile FROM episode ORDER BY id LIMIT 500"


@dataclass(frozen=True)
class Order:
    """By which field a table is sorted."""

    field: str = "number"
    descending: bool = False


class TrajectoryTable:
    """The trajectories of one run, as a reader on one thread sees them.

    ``index`` is the file of the full-text index; without it a query that holds words finds nothing but says so.
    """

    def __init__(self, run: RunReader, index: Path | None = None) -> None:
        self.run = run
        self._attached = False
        if index is not None:
            self.attach(index)

    def attach(self, index: Path) -> None:
        """Let queries search in the full-text index ``index``."""
        if not self._attached:
            self.run.rows(f"ATTACH DATABASE ? AS {_SEARCH}", (f"{index.resolve().as_uri()}?mode=ro",))
            self._attached = True

    @property
    def searchable(self) -> bool:
        """Whether words can be looked for."""
        return self._attached

    def names(self) -> list[str]:
        """Return the name of every field that a query about this run may hold."""
        scores = [f"score.{name}" for name in self.rubrics()]
        labels = [f"label.{row[0]}" for row in self.run.rows("SELECT DISTINCT rubric FROM label ORDER BY 1")]
        keys = self.run.rows(f"SELECT DISTINCT key FROM ({_SOME_PROFILES}), json_each(profile) ORDER BY 1")  # noqa: S608
        return [*FIELDS, *filter(is_field, (*scores, *labels, *(f"profile.{row[0]}" for row in keys)))]

    def rubrics(self) -> list[str]:
        """Return the rubrics that scores were given by, found by leaps through their index."""
        return leaps(self.run, "score", "rubric")

    @staticmethod
    def read(query: str, names: Sequence[str] = ()) -> Node | None:
        """Return ``query`` as it is understood; QueryError if it is not."""
        node = parse(query, is_field, (*(names or FIELDS), *ALIASES))
        condition(node, _nothing_found)
        return node

    def numbers(self, node: Node | None, order: Order) -> array[int]:
        """Return the numbers of the conversations that ``node`` asks for, in order."""
        where, values = self._where(node)
        field = field_of(order.field) or FIELDS["number"]
        direction = "DESC" if order.descending else "ASC"
        by = f"e.id {direction}" if field.name == "number" else f"{field.sql} {direction} NULLS LAST, e.id"
        source = "FROM episode e" if field.name == "number" and node is None else _FROM
        sql = f"SELECT e.id {source} WHERE {where} ORDER BY {by}"
        bound = values if field.name == "number" else (*values, *field.values)
        return self.run.column(sql, bound)

    def rows(self, numbers: Sequence[int], fields: Sequence[Field]) -> dict[int, tuple[Any, ...]]:
        """Return the values of ``fields`` for each of ``numbers``."""
        columns = ", ".join(field.sql for field in fields)
        values = tuple(value for field in fields for value in field.values)
        marks = ", ".join("?" * len(numbers))
        sql = f"SELECT e.id, {columns} {_FROM} WHERE e.id IN ({marks})"
        return {row[0]: tuple(row)[1:] for row in self.run.rows(sql, (*values, *numbers))}

    def summary(self, node: Node | None) -> sqlite3.Row:
        """Return n, failed, running, mean rating and mean veto of what ``node`` asks for."""
        where, values = self._where(node)
        sql = (
            "SELECT count(*) AS n, coalesce(sum(t.status = 'failed'), 0) AS failed,"
            " coalesce(sum(t.status = 'running'), 0) AS running, avg(t.mean_rating) AS rating, avg(t.mean_veto) AS veto"
            f" {_FROM} WHERE {where}"
        )
        return self.run.rows(sql, values)[0]

    def facet(self, name: str, node: Node | None, most: int = 12) -> list[tuple[str, int]]:
        """Return the commonest values of a field among what ``node`` asks for, with counts."""
        field = FIELDS[name]
        where, values = self._where(node)
        sql = f"SELECT {field.sql} AS v, count(*) AS n {_FROM} WHERE {where} GROUP BY 1 ORDER BY n DESC, v LIMIT ?"
        return [("none" if row[0] is None else str(row[0]), row[1]) for row in self.run.rows(sql, (*values, most))]

    def histogram(self, name: str, node: Node | None, bins: int = 20) -> Histogram | None:
        """Return how a number is distributed among what ``node`` asks for; None where nothing has one."""
        field = field_of(name)
        assert field is not None
        where, values = self._where(node)
        inner = f"SELECT {field.sql} AS v {_FROM} WHERE {where}"
        bound = (*field.values, *values)
        low, high, n = self.run.rows(f"SELECT min(v), max(v), count(v) FROM ({inner})", bound)[0]  # noqa: S608
        if not n:
            return None
        width = (high - low) / bins or 1.0
        sql = f"SELECT min(CAST((v - ?) / ? AS INTEGER), ?) AS bin, count(*) FROM ({inner}) WHERE v NOT NULL GROUP BY 1"  # noqa: S608
        counts = [0] * bins
        for row in self.run.rows(sql, (low, width, bins - 1, *bound)):
            counts[row[0]] = row[1]
        return Histogram(float(low), float(high), n, tuple(counts))

    def _where(self, node: Node | None) -> tuple[str, tuple[Any, ...]]:
        return condition(node, self._found)

    def _found(self, words: Words) -> tuple[str, tuple[Any, ...]]:
        if not self._attached:
            return "SELECT 0", ()
        return conversations_with(words.text, prefix=words.prefix, schema=_SEARCH)


def _nothing_found(_words: Words) -> tuple[str, tuple[Any, ...]]:
    return "SELECT 0", ()


@dataclass(frozen=True)
class Histogram:
    """Counts in bins of equal width from ``low`` to ``high``."""

    low: float
    high: float
    n: int
    counts: tuple[int, ...]


def leaps(run: RunReader, table: str, column: str) -> list[str]:
    """Return the different values of an indexed column without reading the rows between."""
    found: list[str] = []
    with explained(run.directory.database):
        row = run.rows(f"SELECT min({column}) FROM {table}")[0]  # noqa: S608
        while row[0] is not None:
            found.append(row[0])
            row = run.rows(f"SELECT min({column}) FROM {table} WHERE {column} > ?", (row[0],))[0]  # noqa: S608
    return found
