"""A run as columns: one row for each complete conversation, one array for each measure.

Shapes: every array has one entry a row; a measure that a conversation lacks is nan there. Names of groups are coded by one
:class:`Names` for all runs of a report, so that the same initial state has the same number everywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from influence_cli.report.measures import (
    BASE,
    HARM,
    VISITED,
    Catalogue,
    Harm,
    Measure,
    aggregate_harm,
)
from influence_cli.scoring.statistics import Sample
from influence_cli.scoring.statistics.intervals import Array, Codes
from influence_cli.store.reader import RunReader

Mask = npt.NDArray[np.bool_]

COLUMNS = ("environment", "scenario", "state", "population", "cue", "split")
_BATCH = 20_000
_MOST_HASHES = 20_000

_ROWS = (
    "SELECT e.id, e.iteration, e.environment, e.scenario, e.initial_state, coalesce(e.population, '') AS population,"
    " e.cue, e.split, t.turns, t.mean_rating, t.final_rating, t.mean_veto FROM episode e"
    " JOIN trajectory t ON t.episode_id = e.id WHERE t.status = 'complete' AND e.id > ? ORDER BY e.id LIMIT ?"
)
_KINDS = (
    "SELECT rubric, rubric_hash, judge, method, max(distribution) AS distribution FROM score"
    " WHERE usable = 1 AND failure IS NULL AND value NOT NULL GROUP BY 1, 2, 3, 4"
)
_VALUES = (
    "SELECT episode_id, avg(value) FROM score WHERE rubric = ? AND judge = ? AND method = ? AND usable = 1"
    " AND failure IS NULL AND value NOT NULL{} GROUP BY episode_id, rubric_hash ORDER BY max(ended), max(id)"
)
"""In order of time, so that of two wordings of a rubric the one asked last stands."""
Rater = tuple[str, str]
"""Judge and method."""


@dataclass
class Names:
    """Numbers for names, by column; the same for all runs."""

    known: dict[str, dict[str, int]] = field(default_factory=lambda: {column: {} for column in COLUMNS})

    def code(self, column: str, name: str) -> int:
        """Return the number of ``name``, a new one if it has none."""
        known = self.known[column]
        return known.setdefault(name, len(known))

    def of(self, column: str) -> list[str]:
        """Return all names, by number."""
        return list(self.known[column])


@dataclass
class RunTable:
    """One run's complete conversations."""

    label: str
    names: Names
    episodes: Codes
    iterations: Codes
    columns: dict[str, Codes]
    values: dict[str, Array]
    measures: dict[str, Measure]
    raters: dict[Rater, dict[str, str]] = field(default_factory=dict)
    """The measure that holds each rubric's scores, by who gave them."""
    harms: list[Harm] = field(default_factory=list)

    def __len__(self) -> int:
        """Return the number of conversations."""
        return len(self.episodes)

    def everything(self) -> Mask:
        """Return a mask of all rows."""
        return np.ones(len(self), bool)

    def where(self, column: str, name: str) -> Mask:
        """Return a mask of the rows whose ``column`` is ``name``."""
        return np.asarray(self.columns[column] == self.names.known[column].get(name, -1))

    def groups(self, column: str) -> list[str]:
        """Return the names that occur in ``column``, sorted."""
        names = self.names.of(column)
        return sorted(names[code] for code in np.unique(self.columns[column]))

    def sample(self, measure: str, mask: Mask) -> Sample:
        """Return the values of a measure in the rows of ``mask`` that have one."""
        kept = mask & np.isfinite(self.values[measure])
        return Sample(self.values[measure][kept], self.columns["scenario"][kept], self.columns["state"][kept])

    def last(self) -> int:
        """Return the number of the last iteration."""
        return int(self.iterations.max())

    def first(self) -> int:
        """Return the number of the first iteration."""
        return int(self.iterations.min())


def read_table(run: RunReader, label: str, names: Names, catalogue: Catalogue) -> RunTable:
    """Return the table of a run; it may have no rows."""
    table = _conversations(run, label, names)
    _add_veto_share(run, table)
    _add_scores(run, table, catalogue)
    _add_harm(table, catalogue)
    empty = [name for name, values in table.values.items() if not np.isfinite(values).any()]
    for name in empty:
        del table.values[name], table.measures[name]
    return table


def _conversations(run: RunReader, label: str, names: Names) -> RunTable:
    numbers: list[tuple[Any, ...]] = []
    measured: list[tuple[Any, ...]] = []
    for row in _pages(run, _ROWS):
        scenario = f"{row['environment']}/{row['scenario']}"
        told = {
            "environment": row["environment"],
            "scenario": scenario,
            "state": f"{scenario}/{row['initial_state']}",
            "population": row["population"],
            "cue": row["cue"],
            "split": row["split"],
        }
        numbers.append((row["id"], row["iteration"], *(names.code(column, told[column]) for column in COLUMNS)))
        measured.append((row["mean_rating"], row["final_rating"], row["mean_veto"], None, row["turns"]))
    whole = np.array(numbers, np.intp).reshape(-1, 2 + len(COLUMNS))
    floats = np.array(measured, np.float64).reshape(-1, len(BASE))
    columns = {column: whole[:, 2 + index].copy() for index, column in enumerate(COLUMNS)}
    values = {measure.id: floats[:, index].copy() for index, measure in enumerate(BASE)}
    measures = {measure.id: measure for measure in BASE}
    return RunTable(label, names, whole[:, 0].copy(), whole[:, 1].copy(), columns, values, measures)


def _pages(run: RunReader, query: str, *values: Any) -> Iterator[Any]:
    """Yield the rows of a query whose first column grows and whose last two values are a start and a number."""
    last = 0
    while batch := run.rows(query, (*values, last, _BATCH)):
        yield from batch
        last = batch[-1][0]


def _add_veto_share(run: RunReader, table: RunTable) -> None:
    """Add whether a conversation would be vetoed: a mean of 0.5 or more on 0/1, of 2 or more on longer scales."""
    rows = run.rows("SELECT choices FROM judgement WHERE role = 'veto' LIMIT 1")
    if not rows:
        return
    scale = _scale(orjson.loads(rows[0]["choices"]))
    if scale is None:
        return
    mean = table.values["mean-veto"]
    table.values["vetoed"] = np.where(np.isfinite(mean), mean >= (0.5 if scale[1] <= 1.0 else 2.0), np.nan)
    table.measures["mean-veto"] = Measure("mean-veto", "Mean veto score", "veto", *scale, worse="up")


def _scale(choices: Iterable[str]) -> tuple[float, float] | None:
    try:
        values = [float(choice) for choice in choices]
    except ValueError:
        return None
    return (min(values), max(values)) if values else None


def _add_scores(run: RunReader, table: RunTable, catalogue: Catalogue) -> None:
    """Add a measure for each rubric, judge, method and scale that the run holds scores of."""
    variants: dict[tuple[str, str, str, tuple[float, float] | None], list[str]] = {}
    for row in run.rows(_KINDS):
        scale = _scale(orjson.loads(row["distribution"])) if row["distribution"] else None
        variants.setdefault((row["rubric"], row["judge"], row["method"], scale), []).append(row["rubric_hash"])
    environments = table.groups("environment") if len(table) else []
    for (rubric, judge, method, scale), hashes in sorted(variants.items(), key=str):
        alike = [key for key in variants if key[0] == rubric]
        id_ = _id(rubric, judge, method, scale, alike)
        rescaled = [key for key in alike if key[1:3] == (judge, method)]
        values = _scores(run, table, (rubric, judge, method), hashes if len(rescaled) > 1 else ())
        measure = catalogue.measure(rubric, scale, (judge,), environments, id_)
        if rubric.startswith(VISITED):
            visited = _visited(table, values, catalogue, rubric.removeprefix(VISITED), environments)
            if visited is None:
                continue
            measure, values = visited
        table.values[measure.id], table.measures[measure.id] = values, measure
        table.raters.setdefault((judge, method), {})[rubric] = measure.id


def _id(rubric: str, judge: str, method: str, scale: tuple[float, float] | None, alike: Sequence[Any]) -> str:
    """Return the rubric's name, with whatever tells it from the others of that name."""
    parts = [rubric]
    if len({key[1] for key in alike}) > 1:
        parts.append(judge)
    if len({key[2] for key in alike}) > 1:
        parts.append(method)
    if len({key[3] for key in alike if key[1:3] == (judge, method)}) > 1:
        parts.append(f"{scale[0]:g}-{scale[1]:g}" if scale else "no scale")
    return " ".join(parts)


def _scores(run: RunReader, table: RunTable, key: tuple[str, str, str], hashes: Sequence[str]) -> Array:
    """Return the mean over turns of each conversation's scores, by the wording that was asked last."""
    kept = f" AND rubric_hash IN ({', '.join('?' * len(hashes[:_MOST_HASHES]))})" if hashes else ""
    found = np.full(len(table), np.nan)
    pairs = run.rows(_VALUES.format(kept), (*key, *hashes[:_MOST_HASHES]))
    if not pairs:
        return found
    episodes = np.array([pair[0] for pair in pairs], np.intp)
    means = np.array([pair[1] for pair in pairs])
    place = np.searchsorted(table.episodes, episodes)
    place = np.minimum(place, max(0, len(table) - 1))
    mine = table.episodes[place] == episodes if len(table) else np.zeros(len(episodes), bool)
    found[place[mine]] = means[mine]
    return found


def _visited(
    table: RunTable, values: Array, catalogue: Catalogue, state: str, environments: Sequence[str]
) -> tuple[Measure, Array] | None:
    """Return the share that entered ``state``, no visit being 0; None for a state that says nothing."""
    metric = catalogue.visits(state, environments)
    met = np.unique(table.columns["environment"][np.isfinite(values)])
    there = np.isin(table.columns["environment"], met)
    filled = np.where(there, np.nan_to_num(values), np.nan)
    if not there.any() or (metric is None and np.nanmin(filled) == np.nanmax(filled)):
        return None
    name = metric.id if metric else f"{VISITED}{state}"
    title = f"{name.replace('-', ' ').capitalize()} (share)" if metric else f"Reached {state} (share)"
    worse = metric.harmful_direction if metric else None
    return Measure(name, title, "computed", 0.0, 1.0, worse, ("visited",)), filled


def _add_harm(table: RunTable, catalogue: Catalogue) -> None:
    """Add aggregate harm, for each environment by the judges who give it for most conversations."""
    whole: Array = np.full(len(table), np.nan)
    for environment in table.groups("environment") if len(table) else []:
        rows = table.where("environment", environment).astype(np.float64)
        tried = (
            aggregate_harm(
                {name: table.values[id_] for name, id_ in view.items()},
                {name: table.measures[id_] for name, id_ in view.items()},
                environment, rows, catalogue,
            )
            for view in _views(table)
        )  # fmt: skip
        found = max(filter(None, tried), key=lambda each: (each[1].published, each[1].n), default=None)
        if found is not None:
            whole = np.where(rows > 0, found[0], whole)
            table.harms.append(found[1])
    if table.harms:
        table.values[HARM] = whole
        table.measures[HARM] = Measure(HARM, "Aggregate harm", "harm", 0.0, 1.0, "up")


def _views(table: RunTable) -> Iterator[dict[str, str]]:
    """Yield by which measures each rubric may be known: those of one judge only, then those of each judge alone."""
    plain = {name: name for name in table.values}
    yield plain
    for known in table.raters.values():
        yield {**plain, **known}


def same_harm(a: RunTable, b: RunTable) -> bool:
    """Return whether aggregate harm means the same in both, in every environment that both have."""
    known = {harm.environment: harm.parts for harm in a.harms}
    return all(known.get(harm.environment, harm.parts) == harm.parts for harm in b.harms)


def shared_measures(tables: Sequence[RunTable]) -> dict[str, Measure]:
    """Return the measures of all tables: reward and harm first, then judged, computed and probes."""
    order = {"reward": 0, "harm": 1, "veto": 2, "rubric": 3, "computed": 4, "probe": 5}
    found: dict[str, Measure] = {}
    for table in tables:
        for name, measure in table.measures.items():
            known = found.get(name)
            judges = tuple(dict.fromkeys([*(known.judges if known else ()), *measure.judges]))
            found[name] = Measure(**{**vars(known or measure), "judges": judges})
    return dict(sorted(found.items(), key=lambda item: order[item[1].kind]))


def distributions(run: RunReader, iteration: int, splits: Sequence[str]) -> Mapping[str, Any] | None:
    """Return the mean share of each choice in the usable ratings of an iteration, by choice; None without any.

    Only complete conversations of ``splits`` are in it.
    """
    query = (
        "SELECT j.id, j.choices, j.probabilities FROM judgement j JOIN episode e ON e.id = j.episode_id"  # noqa: S608
        " JOIN trajectory t ON t.episode_id = e.id WHERE t.status = 'complete' AND j.role = 'preference'"
        f" AND j.usable = 1 AND e.iteration = ? AND e.split IN ({', '.join('?' * len(splits))})"
        " AND j.id > ? ORDER BY j.id LIMIT ?"
    )
    totals: dict[str, float] = {}
    parsed: dict[str, list[str]] = {}
    count = 0
    for row in _pages(run, query, iteration, *splits):
        choices = parsed.setdefault(row["choices"], [])
        if not choices:
            choices.extend(orjson.loads(row["choices"]))
        for choice, share in zip(choices, orjson.loads(row["probabilities"]), strict=True):
            totals[choice] = totals.get(choice, 0.0) + share
        count += 1
    if not count:
        return None
    return {"n": count, "shares": {choice: total / count for choice, total in totals.items()}}
