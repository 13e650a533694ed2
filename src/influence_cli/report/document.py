"""The object ``influence.report/1``: everything that a report says, in one document."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np

from influence_cli import __version__
from influence_cli.errors import InfluenceError
from influence_cli.report.estimates import (
    contrasts_between,
    contrasts_of,
    corrected,
    estimates_of,
    of_shared_splits,
    power_of,
    shifts_of,
)
from influence_cli.report.examples import examples_of
from influence_cli.report.measures import Catalogue
from influence_cli.report.tables import Names, RunTable, distributions, read_table, shared_measures
from influence_cli.scoring.statistics import DRAWS, LEVEL
from influence_cli.store.queries import run_figures
from influence_cli.store.reader import RunReader
from influence_cli.store.run_directory import RunDirectory

SCHEMA = "influence.report/1"


def report_document(directories: Sequence[RunDirectory], catalogue: Catalogue) -> dict[str, Any]:
    """Return the report of several runs side by side; InfluenceError if none of them has a complete conversation."""
    names = Names()
    with ExitStack() as stack:
        readers = [stack.enter_context(RunReader(directory)) for directory in directories]
        tables = [
            read_table(reader, label, names, catalogue)
            for reader, label in zip(readers, labels(directories), strict=True)
        ]
        full = [(reader, table) for reader, table in zip(readers, tables, strict=True) if len(table)]
        if not full:
            raise InfluenceError("No complete conversation is there to report on.", hint="See `influence runs show`.")
        measures = shared_measures([table for _, table in full])
        return {
            "schema": SCHEMA,
            "program": __version__,
            "method": {
                "level": LEVEL,
                "resamples": DRAWS,
                "intervals": "rescaling bootstrap over scenarios; over initial states within fewer than five scenarios",
                "correction": "Holm, within each kind of contrast",
                "effect_size": "Hedges' g",
                "iteration": "the last of each run, whatever its result",
            },
            "runs": [_run(reader, table) for reader, table in zip(readers, tables, strict=True)],
            "measures": [measure.document() for measure in measures.values()],
            "estimates": [row for _, table in full for row in estimates_of(table, _told(measures))],
            "contrasts": _contrasts([table for _, table in full], _told(measures)),
            "power": [row for _, table in full for row in power_of(table, _told(measures))],
            "preference_shift": [row for _, table in full for row in shifts_of(table, measures.values())],
            "rating_distributions": [row for reader, table in full for row in _ratings(reader, table)],
            "examples": [row for reader, table in full for row in examples_of(reader, table)],
        }


def labels(directories: Sequence[RunDirectory]) -> list[str]:
    """Return a name for each run: its own, with a number where two are called alike."""
    names = [directory.path.resolve().name for directory in directories]
    return [
        name if names.count(name) == 1 else f"{name} ({names[: index + 1].count(name)})"
        for index, name in enumerate(names)
    ]


def _told(measures: dict[str, Any]) -> list[str]:
    return [name for name, measure in measures.items() if measure.kind != "probe"]


def _contrasts(tables: Sequence[RunTable], measures: Sequence[str]) -> list[dict[str, Any]]:
    found = [row for table in tables for row in contrasts_of(table, measures)]
    if len(tables) > 1:
        found.extend(contrasts_between(tables, measures))
    corrected(found)
    return found


def _run(reader: RunReader, table: RunTable) -> dict[str, Any]:
    """Return what a run is: its conditions, what failed in it and what it used."""
    figures = run_figures(reader)
    kept = ("run", "path", "state", "command", "created", "seconds", "seed", "models", "conversations", "turns")
    return {
        "label": table.label,
        **{name: figures[name] for name in kept},
        "environments": figures["environments"] or list(reader.directory.manifest.config.environments),
        "iterations": sorted(set(table.iterations.tolist())),
        "reported_iteration": table.last() if len(table) else None,
        "harm": [
            {
                "environment": h.environment,
                "formula": h.formula(),
                "published": h.published,
                "n": h.n,
                "judges": list(h.judges),
            }
            for h in table.harms
        ],
        "ends": figures["ends"],
        "failures": figures["failures"],
        "judgements": figures["unusable"],
        "scores": _scores(reader),
        "calls": figures["calls"],
    }


def _scores(reader: RunReader) -> list[dict[str, Any]]:
    rows = reader.rows(
        "SELECT judge, method, count(*) AS n, sum(usable = 0 AND failure IS NULL) AS unusable,"
        " sum(failure NOT NULL) AS failed FROM score WHERE method != 'computed' GROUP BY 1, 2 ORDER BY 1, 2"
    )
    return [dict(row) for row in rows]


def _ratings(reader: RunReader, table: RunTable) -> list[dict[str, Any]]:
    """Return how ratings are distributed in the first iteration and the last, in the splits that both have."""
    found = []
    ends = dict.fromkeys((table.first(), table.last()))
    masks = of_shared_splits(*((table, table.iterations == iteration) for iteration in ends))
    names = table.names.of("split")
    for iteration, mask in zip(ends, masks, strict=True):
        splits = [names[code] for code in np.unique(table.columns["split"][mask]).tolist()]
        ratings = distributions(reader, iteration, splits)
        if ratings is not None:
            found.append({"run": table.label, "iteration": iteration, **ratings})
    return found
