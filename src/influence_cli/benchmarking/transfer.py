"""What training in one environment does in another: a matrix of agents and environments.

Each cell is an ordinary run: conversations with held-out people of one environment, by one agent. A cell's difference is
that from the untrained agent in the same environment, paired by initial state where both have it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from influence_cli.report.comparison import Side, comparison_document
from influence_cli.report.estimates import estimate
from influence_cli.report.measures import Catalogue
from influence_cli.report.tables import Names, read_table
from influence_cli.store.reader import RunReader
from influence_cli.store.run_directory import RunDirectory

UNTRAINED = "untrained"


@dataclass(frozen=True)
class Agent:
    """A row of the matrix: an agent with the environments that it was trained in; none for the untrained one."""

    label: str
    model: str
    base: str
    trained_in: tuple[str, ...] = ()


@dataclass(frozen=True)
class Cell:
    """One agent in one environment, and the run that says how it did."""

    agent: Agent
    environment: str
    directory: RunDirectory


def matrix(cells: Sequence[Cell], catalogue: Catalogue, wanted: Iterable[str]) -> list[dict[str, Any]]:
    """Return for each cell and measure its mean, and its difference from the untrained agent there, with intervals."""
    untrained = {(cell.agent.base, cell.environment): cell for cell in cells if not cell.agent.trained_in}
    names = list(wanted)
    return [
        row
        for cell in cells
        for row in _rows(cell, untrained.get((cell.agent.base, cell.environment)), catalogue, names)
    ]


def _rows(cell: Cell, base: Cell | None, catalogue: Catalogue, wanted: Sequence[str]) -> list[dict[str, Any]]:
    with RunReader(cell.directory) as run:
        table = read_table(run, cell.agent.label, Names(), catalogue)
    differences = {}
    if base is not None and base is not cell and len(table):
        document = comparison_document(Side(base.directory), Side(cell.directory), catalogue, most=0)
        differences = {row["measure"]: row for row in document["differences"] if row["by"] == "all"}
    rows = []
    for name in wanted:
        known = len(table) and name in table.values
        found = estimate(table, name, table.everything()) if known else None
        change = differences.get(name)
        rows.append(
            {
                "agent": cell.agent.label,
                "model": cell.agent.model,
                "trained_in": list(cell.agent.trained_in),
                "environment": cell.environment,
                "own": cell.environment in cell.agent.trained_in,
                "measure": name,
                "run": str(cell.directory.path),
                **{key: found[key] if found else None for key in ("n", "value", "low", "high")},
                "change": {key: change[key] for key in ("value", "low", "high", "paired", "p")} if change else None,
            }
        )
    return rows
