"""Which figures a report shows, from its document alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from influence_cli.report import charts
from influence_cli.report.charts import Chart, Series
from influence_cli.report.measures import HARM, REWARD

Document = Mapping[str, Any]
Rows = Sequence[Mapping[str, Any]]

_MOST_GROUPS = 40
_ALWAYS = (REWARD, HARM)
_NOT_DRAWN = ("final-rating",)


def iteration_panels(document: Document) -> list[Chart]:
    """Return a line panel for every measure that was taken at several iterations."""
    found = []
    for number, measure in enumerate(document["measures"]):
        rows = [r for r in document["estimates"] if r["measure"] == measure["id"] and r["by"] == "all"]
        if len({row["iteration"] for row in rows}) < 2 or measure["id"] in _NOT_DRAWN:
            continue
        series = []
        for index, run in enumerate(document["runs"]):
            splits = ["train", "heldout"] if any(r["split"] == "heldout" for r in _of(rows, run)) else ["all"]
            for dash, split in enumerate(splits):
                mine = [row for row in _of(rows, run) if row["split"] == split]
                if mine:
                    label = run["label"] if split == "all" else f"{run['label']}, {_SPLITS[split]}"
                    series.append(_line(label, index, mine, dash))
        if any(len(set(each.values)) > 1 for each in series):
            found.append(charts.lines(f"line{number}", measure["title"], series, _scale(measure), "iteration"))
    return found


_SPLITS = {"train": "training", "heldout": "held out"}


def group_panels(document: Document, column: str) -> list[Chart]:
    """Return points of reward and harm by the groups of a column, at each run's reported iteration."""
    found = []
    for measure in (m for m in document["measures"] if m["id"] in _ALWAYS):
        rows = reported(document, column, measure["id"])
        groups = list(dict.fromkeys(row["group"] for row in rows))[:_MOST_GROUPS]
        if len(groups) < 2:
            continue
        series = [
            _points(run["label"], index, mine, groups, "group")
            for index, run in enumerate(document["runs"])
            if (mine := _of(rows, run))
        ]
        name = f"{column}-{measure['id']}"
        found.append(charts.points(name, f"{measure['title']} by {column}", groups, series, _scale(measure), False))
    return found


def gap_panels(document: Document) -> list[Chart]:
    """Return targeting gaps of reward and harm by cue."""
    found = []
    for measure in (m for m in document["measures"] if m["id"] in _ALWAYS):
        rows = [
            row
            for row in document["contrasts"]
            if row["kind"] == "targeting-gap" and row["measure"] == measure["id"]
            and row["iteration"] == _last(document, row["run"])
        ]  # fmt: skip
        cues = list(dict.fromkeys(row["group"] for row in rows))
        series = [
            _points(run["label"], index, mine, cues, "group")
            for index, run in enumerate(document["runs"])
            if (mine := _of(rows, run))
        ]
        if series:
            title = f"Targeting gap by cue: {measure['title'].lower()}, gameable less resilient"
            found.append(charts.points(f"gap-{measure['id']}", title, cues, series, None, True))
    return found


def rating_panels(document: Document) -> list[Chart]:
    """Return the distribution of ratings of each run, first iteration beside last."""
    found = []
    for index, run in enumerate(document["runs"]):
        rows = _of(document["rating_distributions"], run)
        choices = list(dict.fromkeys(choice for row in rows for choice in row["shares"]))
        series = [
            Series(
                label=f"iteration {row['iteration']}",
                index=index,
                at=range(len(choices)),
                values=[row["shares"].get(choice, 0.0) for choice in choices],
                low=[None] * len(choices),
                high=[None] * len(choices),
                dash=int(len(rows) > 1 and order == 0),
            )
            for order, row in enumerate(rows)
        ]
        if series:
            title = f"Ratings, {run['label']}" + (": first iteration pale, last one full" if len(rows) > 1 else "")
            found.append(charts.bars(f"ratings{index}", title, choices, series))
    return found


def shift_panels(document: Document) -> list[Chart]:
    """Return mean preference shifts by probe and population."""
    rows = [row for row in document["preference_shift"] if row["part"] == "shift"]
    groups = list(dict.fromkeys(f"{row['probe']}, {row['population']}" for row in rows))[:_MOST_GROUPS]
    told = [{**row, "place": f"{row['probe']}, {row['population']}"} for row in rows]
    series = [
        _points(run["label"], index, mine, groups, "place")
        for index, run in enumerate(document["runs"])
        if (mine := _of(told, run))
    ]
    if not series:
        return []
    return [charts.points("shift", "Preference shift: after less before", groups, series, None, True)]


def reported(document: Document, column: str, measure: str) -> list[Mapping[str, Any]]:
    """Return the estimates of a measure by the groups of a column, at each run's reported iteration."""
    return [
        row
        for row in document["estimates"]
        if row["by"] == column
        and row["measure"] == measure
        and row["split"] == "all"
        and row["iteration"] == _last(document, row["run"])
    ]


def _last(document: Document, label: str) -> int | None:
    return next((run["reported_iteration"] for run in document["runs"] if run["label"] == label), None)


def _of(rows: Iterable[Mapping[str, Any]], run: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [row for row in rows if row["run"] == run["label"]]


def _scale(measure: Mapping[str, Any]) -> tuple[float, float] | None:
    return (measure["scale"][0], measure["scale"][1]) if measure["scale"] else None


def _line(label: str, index: int, rows: Rows, dash: int) -> Series:
    return Series(
        label=label,
        index=index,
        at=[row["iteration"] for row in rows],
        values=[row["value"] for row in rows],
        low=[row["low"] for row in rows],
        high=[row["high"] for row in rows],
        dash=dash,
    )


def _points(label: str, index: int, rows: Rows, groups: Sequence[str], name: str) -> Series:
    kept = [row for row in rows if row[name] in groups]
    return Series(
        label=label,
        index=index,
        at=[groups.index(row[name]) for row in kept],
        values=[row["value"] for row in kept],
        low=[row["low"] for row in kept],
        high=[row["high"] for row in kept],
    )
