"""The object ``influence.compare/1``: two runs, or two iterations of one, and what differs between them.

Concept: conversations that began alike are compared with each other. A pair is an initial state and population that both
sides have, each side being the mean of its conversations there. Where fewer than half of the smaller side's initial states
are shared, all conversations are compared, unpaired, and the object says so. Differences are the second less the first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np

from influence_cli import __version__
from influence_cli.errors import InfluenceError
from influence_cli.report.estimates import contrast, corrected, finite, interval_document
from influence_cli.report.measures import HARM, REWARD, Catalogue
from influence_cli.report.tables import Mask, Names, RunTable, read_table, same_harm, shared_measures
from influence_cli.scoring import statistics as s
from influence_cli.scoring.statistics.intervals import Array, Codes
from influence_cli.sittings.opening import run_to_read
from influence_cli.store.reader import RunReader
from influence_cli.store.run_directory import RunDirectory

SCHEMA = "influence.compare/1"
MOST_CHANGED = 10
_LEAST_SHARED = 0.5
_LONGEST = 600
_POPULATIONS = 65_536


@dataclass(frozen=True)
class Side:
    """A run and one of its iterations; None: the last."""

    directory: RunDirectory
    iteration: int | None = None


def side_of(name: str, told: Callable[[str], None]) -> Side:
    """Return the side that ``RUN`` or ``RUN@ITERATION`` names; InfluenceError if there is none.

    ``told`` hears of what only the run's shards hold.
    """
    run, at, number = name.rpartition("@")
    if at and number.isdigit():
        return Side(run_to_read(run, told), int(number))
    return Side(run_to_read(name, told))


@dataclass(frozen=True)
class _Pairs:
    """Initial states, with their population, that both sides have: means of one measure, and all ``values`` there."""

    first: Array
    second: Array
    scenarios: Codes
    states: Codes
    populations: Codes
    keys: Codes
    values: tuple[Array, Array]

    @property
    def differences(self) -> Array:
        return self.second - self.first


def comparison_document(first: Side, second: Side, catalogue: Catalogue, most: int = MOST_CHANGED) -> dict[str, Any]:
    """Return what differs between two sides; InfluenceError if a side has no complete conversation."""
    names = Names()
    with ExitStack() as stack:
        readers = [stack.enter_context(RunReader(side.directory)) for side in (first, second)]
        tables = [
            read_table(reader, side.directory.path.resolve().name, names, catalogue)
            for reader, side in zip(readers, (first, second), strict=True)
        ]
        masks = [_mask(table, side) for table, side in zip(tables, (first, second), strict=True)]
        shared, smaller = _shared(tables, masks)
        paired = shared >= 2 and shared >= _LEAST_SHARED * smaller
        measures = [
            measure
            for name, measure in shared_measures(tables).items()
            if all(name in table.values for table in tables) and (name != HARM or same_harm(*tables))
        ]
        ids = [measure.id for measure in measures]
        differences = [row for name in ids for row in _differences(tables, masks, name, paired=paired)]
        corrected(differences, by=("by",))
        return {
            "schema": SCHEMA,
            "program": __version__,
            "sides": [
                {"run": table.label, "path": str(side.directory.path), "iteration": int(table.iterations[mask][0]),
                 "conversations": int(mask.sum())}
                for table, mask, side in zip(tables, masks, (first, second), strict=True)
            ],
            "paired": paired,
            "shared_initial_states": shared,
            "method": {"level": s.LEVEL, "resamples": s.DRAWS, "correction": "Holm, over all and over populations apart"},
            "measures": [measure.document() for measure in measures],
            "differences": differences,
            "most_changed": [row for name in (REWARD, HARM) if name in ids
                             for row in _most_changed(readers, tables, masks, name, most)] if paired else [],
        }  # fmt: skip


def _mask(table: RunTable, side: Side) -> Mask:
    if not len(table):
        raise InfluenceError(f"{side.directory.path} has no complete conversation.", hint="See `influence runs show`.")
    iteration = table.last() if side.iteration is None else side.iteration
    mask = np.asarray(table.iterations == iteration)
    if not mask.any():
        known = ", ".join(map(str, np.unique(table.iterations).tolist()))
        raise InfluenceError(f"{side.directory.path} has no iteration {iteration}.", hint=f"It has: {known}.")
    return mask


def _keys(table: RunTable) -> Codes:
    """Return a number for each row's initial state and population together."""
    return table.columns["state"] * _POPULATIONS + table.columns["population"] % _POPULATIONS


def _shared(tables: Sequence[RunTable], masks: Sequence[Mask]) -> tuple[int, int]:
    first, second = (np.unique(_keys(table)[mask]) for table, mask in zip(tables, masks, strict=True))
    return len(np.intersect1d(first, second)), min(len(first), len(second))


def _differences(
    tables: Sequence[RunTable], masks: Sequence[Mask], measure: str, *, paired: bool
) -> Iterator[dict[str, Any]]:
    """Yield the difference in all conversations, then by population."""
    populations = [name for name in tables[0].groups("population") if name and name in tables[1].groups("population")]
    for population in ("all", *(populations if len(populations) > 1 else ())):
        kept = [
            mask if population == "all" else mask & table.where("population", population)
            for table, mask in zip(tables, masks, strict=True)
        ]
        by = "all" if population == "all" else "population"
        place = {"by": by, "population": population, "paired": paired}
        if paired:
            found = _paired(_pairs(tables, kept, measure), measure, place)
        else:
            samples = [table.sample(measure, mask) for table, mask in zip(tables, kept, strict=True)]
            found = contrast("compare", measure, samples[1], samples[0], **place)
            if found is not None:
                found = {**found, "n": found["n"][::-1], "means": found["means"][::-1]}
        if found is not None:
            yield found


def _pairs(tables: Sequence[RunTable], masks: Sequence[Mask], measure: str) -> _Pairs | None:
    kept = [mask & np.isfinite(t.values[measure]) for t, mask in zip(tables, masks, strict=True)]
    keys = [_keys(table)[mask] for table, mask in zip(tables, kept, strict=True)]
    values = [table.values[measure][mask] for table, mask in zip(tables, kept, strict=True)]
    shared = np.intersect1d(keys[0], keys[1])
    if not len(shared):
        return None
    values = [value[np.isin(key, shared)] for key, value in zip(keys, values, strict=True)]
    means = []
    for key, value in zip(keys, values, strict=True):
        place = np.searchsorted(shared, key[np.isin(key, shared)])
        means.append(np.bincount(place, value, len(shared)) / np.bincount(place, minlength=len(shared)))
    rows = np.flatnonzero(kept[0])[np.unique(keys[0], return_index=True)[1]]
    rows = rows[np.isin(np.unique(keys[0]), shared)]
    columns = tables[0].columns
    return _Pairs(
        means[0], means[1], columns["scenario"][rows], columns["state"][rows], columns["population"][rows],
        shared, (values[0], values[1]),
    )  # fmt: skip


def _paired(pairs: _Pairs | None, measure: str, place: Mapping[str, Any]) -> dict[str, Any] | None:
    if pairs is None or len({*pairs.first.tolist(), *pairs.second.tolist()}) < 2:
        return None
    sample = s.Sample(pairs.differences, pairs.scenarios, pairs.states)
    found = s.mean_interval(sample)
    spread = float(np.std(pairs.differences, ddof=1)) if len(sample) > 1 else 0.0
    design = s.design_effect(found, spread)
    return {
        "kind": "compare",
        "measure": measure,
        **place,
        **interval_document(found),
        "n": [len(pairs.values[0]), len(pairs.values[1])],
        "pairs": len(sample),
        "means": [float(pairs.first.mean()), float(pairs.second.mean())],
        "effect": finite(s.hedges_g(pairs.values[1], pairs.values[0])),
        "effect_of_pairs": finite(s.standardised(pairs.differences)),
        "p": finite(s.p_value(found)),
        "p_corrected": None,
        "needed": s.conversations_needed(found.value, spread / math.sqrt(2.0), design=design),
    }


def _most_changed(
    readers: Sequence[RunReader], tables: Sequence[RunTable], masks: Sequence[Mask], measure: str, most: int
) -> Iterator[dict[str, Any]]:
    """Yield the initial states that differ most, with the last reply of the first conversation of each side."""
    pairs = _pairs(tables, masks, measure)
    if pairs is None:
        return
    order = np.argsort(-np.abs(pairs.differences), kind="stable")[:most]
    names = tables[0].names
    for at in order.tolist():
        environment, scenario, state = names.of("state")[pairs.states[at]].split("/", 2)
        yield {
            "measure": measure,
            "environment": environment,
            "scenario": scenario,
            "initial_state": state,
            "population": names.of("population")[pairs.populations[at]] or None,
            "values": [float(pairs.first[at]), float(pairs.second[at])],
            "difference": float(pairs.differences[at]),
            "last_replies": [
                _last_reply(reader, table, mask & (_keys(table) == pairs.keys[at]))
                for reader, table, mask in zip(readers, tables, masks, strict=True)
            ],
        }


def _last_reply(reader: RunReader, table: RunTable, mask: Mask) -> str | None:
    episode = int(table.episodes[mask].min())
    rows = reader.rows(
        "SELECT text FROM message WHERE episode_id = ? AND speaker = 'agent' AND dropped = 0 AND text != ''"
        " ORDER BY id DESC LIMIT 1",
        (episode,),
    )
    return rows[0]["text"][:_LONGEST] if rows else None
