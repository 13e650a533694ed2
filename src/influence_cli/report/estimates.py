"""Figures of tables: means of groups, and differences between two groups, each with what it takes to judge it.

Invariant: an estimate names its run, measure, iteration, split and group, how many conversations are in it, and over what
it was resampled; limits are null where there are too few units to know.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from influence_cli.report.measures import HARM, PROBE, Measure
from influence_cli.report.tables import Mask, RunTable, same_harm
from influence_cli.schemas.records import GAMEABLE, RESILIENT
from influence_cli.scoring import statistics as s

EFFECTS = (0.2, 0.5, 0.8)
"""Cohen's small, medium and large standardised differences."""

Estimate = dict[str, Any]
Contrast = dict[str, Any]


def finite(value: float | None) -> float | None:
    """Return a number that JSON can hold; None for what is not finite."""
    return None if value is None or not math.isfinite(value) else float(value)


def interval_document(interval: s.Interval, bounds: tuple[float, float] | None = None) -> dict[str, Any]:
    """Return an interval as it stands in a report, its limits within what is possible at all."""
    low, high = bounds if bounds is not None else (-math.inf, math.inf)
    return {
        "n": interval.n,
        "value": interval.value,
        "low": None if math.isinf(interval.low) else max(low, interval.low),
        "high": None if math.isinf(interval.high) else min(high, interval.high),
        "units": interval.units,
        "over": interval.over,
    }


def estimate(table: RunTable, measure: str, mask: Mask, **place: Any) -> Estimate | None:
    """Return the mean of a measure in the rows of ``mask``; None without any."""
    sample = table.sample(measure, mask)
    if not len(sample):
        return None
    sd = float(np.std(sample.values, ddof=1)) if len(sample) > 1 else None
    known = table.measures[measure]
    bounds = None if known.low is None or known.high is None else (known.low, known.high)
    told = interval_document(s.mean_interval(sample), bounds)
    return {"run": table.label, "measure": measure, **place, **told, "sd": sd}


def contrast(kind: str, measure: str, a: s.Sample, b: s.Sample, **place: Any) -> Contrast | None:
    """Return mean(a) - mean(b) with interval, effect size, p-value and the conversations it takes to see it.

    None where a group is empty or nothing varies at all.
    """
    if not len(a) or not len(b) or len({*a.values.tolist(), *b.values.tolist()}) < 2:
        return None
    found = s.difference_interval(a, b)
    spread = pooled_sd(a, b)
    design = s.design_effect(s.mean_interval(b), float(np.std(b.values, ddof=1)) if len(b) > 1 else 0.0)
    return {
        "kind": kind,
        "measure": measure,
        **place,
        **interval_document(found),
        "n": [len(a), len(b)],
        "means": [float(a.values.mean()), float(b.values.mean())],
        "effect": finite(s.hedges_g(a.values, b.values)),
        "p": finite(s.p_value(found)),
        "p_corrected": None,
        "needed": s.conversations_needed(found.value, spread, design=design),
    }


def pooled_sd(a: s.Sample, b: s.Sample) -> float:
    """Return the common standard deviation of two groups; 0 where there is none."""
    freedom = len(a) + len(b) - 2
    if freedom < 1:
        return 0.0
    squares = sum(float(((each.values - each.values.mean()) ** 2).sum()) for each in (a, b))
    return math.sqrt(squares / freedom)


def corrected(contrasts: Sequence[Contrast], by: Sequence[str] = ("kind", "iteration")) -> None:
    """Fill in p-values corrected after Holm, within the families that ``by`` makes."""
    families: dict[tuple[Any, ...], list[Contrast]] = {}
    for each in contrasts:
        if each["p"] is not None:
            families.setdefault(tuple(each.get(name) for name in by), []).append(each)
    for family in families.values():
        found = s.holm({str(index): each["p"] for index, each in enumerate(family)})
        for index, each in enumerate(family):
            each["p_corrected"] = found[str(index)]
            each["family"] = len(family)


def estimates_of(table: RunTable, measures: Iterable[str]) -> Iterator[Estimate]:
    """Yield the means of every measure: by iteration and split; by scenario, population and cue at first and last."""
    iterations = np.unique(table.iterations).tolist()
    ends = dict.fromkeys((table.first(), table.last()))
    splits = ["all", *(table.groups("split") if len(table.groups("split")) > 1 else [])]
    chosen = [name for name in measures if name in table.values]
    for iteration in iterations:
        now = table.iterations == iteration
        for split in splits:
            kept = now if split == "all" else now & table.where("split", split)
            for name in chosen:
                yield from _one(table, name, kept, iteration, split, "all", "all")
    for iteration in ends:
        now = table.iterations == iteration
        for column in ("environment", "scenario", "population", "cue"):
            for group in _told_groups(table, column):
                kept = now & table.where(column, group)
                for name in chosen:
                    yield from _one(table, name, kept, iteration, "all", column, group)


def _told_groups(table: RunTable, column: str) -> list[str]:
    groups = [group for group in table.groups(column) if group]
    return [] if column == "environment" and len(groups) < 2 else groups


def _one(
    table: RunTable, measure: str, mask: Mask, iteration: int, split: str, by: str, group: str
) -> Iterator[Estimate]:
    found = estimate(table, measure, mask, iteration=iteration, split=split, by=by, group=group)
    if found is not None:
        yield found


def contrasts_of(table: RunTable, measures: Iterable[str]) -> Iterator[Contrast]:
    """Yield a run's own contrasts: last less first iteration, gameable less resilient by cue, held-out less training."""
    chosen = [name for name in measures if name in table.values]
    last = table.iterations == table.last()
    first, alike = of_shared_splits((table, table.iterations == table.first()), (table, last))
    if table.first() != table.last():
        for name in chosen:
            place = {"run": table.label, "group": "all", "iterations": [table.last(), table.first()]}
            yield from _kept(contrast("change", name, table.sample(name, alike), table.sample(name, first), **place))
    yield from _gaps(table, chosen, {table.first(): first, table.last(): last})
    yield from _heldout_gaps(table, chosen)


def of_shared_splits(*sides: tuple[RunTable, Mask]) -> list[Mask]:
    """Return the mask of each side without the splits that another lacks; as they are where all share none.

    A training run ends with held-out conversations alone: set against all of an earlier iteration, who was talked with
    would pass for what was learnt.
    """
    splits = [set(table.columns["split"][mask].tolist()) for table, mask in sides]
    shared = set.intersection(*splits)
    if not shared:
        return [mask for _, mask in sides]
    return [mask & np.isin(table.columns["split"], list(shared)) for table, mask in sides]


def _heldout_gaps(table: RunTable, measures: Sequence[str]) -> Iterator[Contrast]:
    """Yield held-out less training initial states, at the last iteration that has conversations of both."""
    heldout, train = table.where("split", "heldout"), table.where("split", "train")
    both = np.intersect1d(table.iterations[heldout], table.iterations[train])
    if not len(both):
        return
    now = table.iterations == both.max()
    place = {"run": table.label, "group": "all", "iteration": int(both.max())}
    for name in measures:
        a, b = table.sample(name, now & heldout), table.sample(name, now & train)
        yield from _kept(contrast("heldout-gap", name, a, b, **place))


def _gaps(table: RunTable, measures: Sequence[str], masks: Mapping[int, Mask]) -> Iterator[Contrast]:
    """Yield targeting gaps, all cues together and each alone, in the iterations that ``masks`` name."""
    gameable, resilient = _any_of(table, GAMEABLE), _any_of(table, RESILIENT)
    if not gameable.any() or not resilient.any():
        return
    cues = table.groups("cue")
    for iteration, now in masks.items():
        for cue in (["all"] if len(cues) > 1 else []) + cues:
            kept = now if cue == "all" else now & table.where("cue", cue)
            for name in measures:
                a = table.sample(name, kept & gameable)
                b = table.sample(name, kept & resilient)
                place = {"run": table.label, "group": cue, "iteration": iteration}
                yield from _kept(contrast("targeting-gap", name, a, b, **place))


def _any_of(table: RunTable, populations: Sequence[str]) -> Mask:
    found = ~table.everything()
    for population in populations:
        found |= table.where("population", population)
    return found


def contrasts_between(tables: Sequence[RunTable], measures: Iterable[str]) -> Iterator[Contrast]:
    """Yield every later run of the first one's environments less the first, each at its last iteration.

    Both sides are of the splits that both have; their scenarios (initial states) are resampled together.
    """
    base = tables[0]
    alike = [table for table in tables[1:] if table.groups("environment") == base.groups("environment")]
    for name in measures:
        for table in alike:
            if name in table.values and name in base.values and (name != HARM or same_harm(base, table)):
                own, other = of_shared_splits(*((each, each.iterations == each.last()) for each in (table, base)))
                a, b = table.sample(name, own), base.sample(name, other)
                yield from _kept(contrast("run", name, a, b, run=table.label, base=base.label, group="all"))


def _kept(found: Contrast | None) -> Iterator[Contrast]:
    if found is not None:
        yield found


def power_of(table: RunTable, measures: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Yield for every measure how many conversations each of two groups needs to tell effects of given sizes."""
    last = table.iterations == table.last()
    for name in measures:
        sample = table.sample(name, last) if name in table.values else None
        if sample is None or len(sample) < 3:
            continue
        spread = float(np.std(sample.values, ddof=1))
        if spread <= 0.0:
            continue
        design = s.design_effect(s.mean_interval(sample), spread)
        yield {
            "run": table.label,
            "measure": name,
            "n": len(sample),
            "sd": spread,
            "design_effect": design,
            "needed": {f"{d:g}": s.conversations_needed(d * spread, spread, design=design) for d in EFFECTS},
            "detectable": spread * math.sqrt(2.0 * design / len(sample)) * _FACTOR,
        }


_FACTOR = 1.959964 + 0.841621
"""Normal quantiles of a two-sided test at 5 % and of 80 % power."""


SHIFT, CONTROL, OVER = "shift", "control-shift", "over-control"


def shifts_of(table: RunTable, measures: Iterable[Measure]) -> Iterator[dict[str, Any]]:
    """Yield preference shift: means of ``probe:ID:PART`` at the last iteration, of all and by population.

    Where a probe has a control (the same conversation with a neutral agent), ``over-control`` is the shift less that of
    the control, both of the same conversations and resampled together. Where several models or methods answered probes,
    the probe's name says which, and each is set against its own control.
    """
    last = table.iterations == table.last()
    asked = {rater: known for rater, known in table.raters.items() if any(name.startswith(PROBE) for name in known)}
    places = {id_: (rater, name) for rater, known in asked.items() for name, id_ in known.items()}
    for measure in measures:
        if measure.kind != "probe" or measure.id not in table.values or measure.id not in places:
            continue
        rater, name = places[measure.id]
        probe, _, part = name.removeprefix(PROBE).rpartition(":")
        shift = asked[rater].get(f"{PROBE}{probe}:{SHIFT}")
        for population in ["all", *filter(None, table.groups("population"))]:
            kept = last if population == "all" else last & table.where("population", population)
            place = {"probe": f"{probe} [{', '.join(rater)}]" if len(asked) > 1 else probe, "population": population}
            found = estimate(table, measure.id, kept, **place, part=part)
            if found is not None:
                yield found
            if part == CONTROL and shift is not None and shift in table.values:
                yield from _over_control(table, shift, measure.id, kept, place)


def _over_control(
    table: RunTable, shift: str, control: str, kept: Mask, place: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    both = kept & np.isfinite(table.values[shift]) & np.isfinite(table.values[control])
    a, b = table.sample(shift, both), table.sample(control, both)
    if len(a):
        told = interval_document(s.difference_interval(a, b))
        yield {"run": table.label, "measure": shift, **place, "part": OVER, **told, "n": len(a), "sd": None}
