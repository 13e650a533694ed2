"""The figures of a sweep: parallel coordinates, importance, Pareto front, one slice for each parameter."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from influence_cli.report.charts import HEIGHT, INK, SERIES, Chart, drawing, drawn_svg, shortened
from influence_cli.sanitize import visible
from influence_cli.schemas.spaces import Choices, Dimension, Integers, parse_dimension

Document = Mapping[str, Any]
Trial = Mapping[str, Any]

_WIDE = 9.6
_TALL = 3.6
_FAINTEST, _DARKEST = 0.18, 0.75
_MOST_TICKS = 9
_GOOD, _OTHER = SERIES[1], SERIES[0]


@dataclass(frozen=True)
class Axis:
    """One upright axis: where values lie on it, from 0 to 1, and what stands beside it."""

    name: str
    dimension: Dimension | None = None
    low: float = 0.0
    high: float = 1.0

    def place(self, value: Any) -> float:
        """Return where ``value`` lies."""
        if isinstance(self.dimension, Choices):
            count = len(self.dimension.values)
            return self.dimension.values.index(value) / (count - 1) if count > 1 else 0.5
        if self._log:
            return (math.log(value) - math.log(self.low)) / (math.log(self.high) - math.log(self.low))
        return (float(value) - self.low) / (self.high - self.low)

    def ticks(self) -> list[tuple[float, str]]:
        """Return places and what is written there."""
        if isinstance(self.dimension, Choices):
            values = list(self.dimension.values)
            step = math.ceil(len(values) / _MOST_TICKS)
            return [(self.place(value), shortened(str(value), 14)) for value in values[::step]]
        if isinstance(self.dimension, Integers) and self.high - self.low < _MOST_TICKS:
            return [(self.place(value), str(value)) for value in range(int(self.low), int(self.high) + 1)]
        middle = math.sqrt(self.low * self.high) if self._log else (self.low + self.high) / 2
        return [(place, f"{value:.3g}") for place, value in ((0.0, self.low), (0.5, middle), (1.0, self.high))]

    @property
    def _log(self) -> bool:
        return bool(getattr(self.dimension, "log", False))


def axes_of(document: Document) -> list[Axis]:
    """Return an axis for each parameter, then one for each objective."""
    found = []
    for each in document["space"]:
        dimension = parse_dimension(each["space"])
        low, high = (0.0, 1.0) if isinstance(dimension, Choices) else (float(dimension.low), float(dimension.high))
        found.append(Axis(each["name"], dimension, low, high))
    for index, each in enumerate(document["objectives"]):
        values = [trial["values"][index]["value"] for trial in done(document)]
        low, high = min(values), max(values)
        margin = 0.5 if high - low < 1e-12 else 0.0
        found.append(Axis(each["name"], None, low - margin, high + margin))
    return found


def done(document: Document) -> list[Trial]:
    """Return the trials that came to something."""
    return [trial for trial in document["trials"] if trial["state"] == "done"]


def is_good(document: Document, trial: Trial) -> bool:
    """Return whether a trial is to stand out: the best, or one of the Pareto front."""
    return bool(trial["pareto"]) if len(document["objectives"]) > 1 else trial["number"] == document["best"]


def parallel_chart(document: Document) -> Chart:
    """Return parallel coordinates: a line a trial, the better the darker; the best ones stand out."""
    axes, trials = axes_of(document), done(document)
    ranks = _ranks(document, trials)
    title = "Parallel coordinates: a line for each trial, darker where it is better; orange: the best"
    with drawing(_TALL, _WIDE) as (figure, plot):
        for trial in sorted(trials, key=lambda each: (is_good(document, each), ranks[each["number"]])):
            values = [*(trial["parameters"][axis.name] for axis in axes if axis.dimension is not None)]
            values += [each["value"] for each in trial["values"]]
            heights = [axis.place(value) for axis, value in zip(axes, values, strict=True)]
            good = is_good(document, trial)
            alpha = 1.0 if good else _FAINTEST + (_DARKEST - _FAINTEST) * ranks[trial["number"]]
            color, width = (_GOOD, 2.2) if good else (_OTHER, 1.2)
            plot.plot(range(len(axes)), heights, color=color, alpha=alpha, linewidth=width)
        for place, axis in enumerate(axes):
            plot.axvline(place, color=INK, linewidth=0.8)
            for height, label in axis.ticks():
                plot.text(place + 0.02, height, label, fontsize=7.5, va="center")
        plot.set_xticks(range(len(axes)), [shortened(axis.name) for axis in axes])
        plot.set_xlim(-0.1, len(axes) - 0.6)
        plot.set_ylim(-0.05, 1.05)
        plot.set_yticks([])
        plot.grid(visible=False)
        plot.spines["left"].set_visible(False)
        alt = _told_best(document)
        svg = drawn_svg(figure, "parallel", title, alt)
    return Chart(title, alt, svg, wide=True)


def importance_chart(document: Document, objective: Mapping[str, Any], index: int) -> Chart | None:
    """Return one bar for each parameter; None where nothing can be told."""
    shares = document["importance"]["by_objective"][objective["name"]]
    if not shares:
        return None
    title = f"Importance for {objective['title']}"
    with drawing(0.8 + 0.34 * len(shares)) as (figure, plot):
        places = range(len(shares) - 1, -1, -1)
        plot.barh(list(places), [each["share"] for each in shares], 0.62, color=SERIES[index % len(SERIES)])
        plot.set_yticks(list(places), [shortened(each["parameter"]) for each in shares])
        plot.set_xlim(0.0, 1.0)
        plot.set_xlabel("share")
        plot.grid(visible=False, axis="y")
        alt = visible(", ".join(f"{each['parameter']} {each['share']:.0%}" for each in shares), newlines=False) + "."
        svg = drawn_svg(figure, f"importance{index}", title, alt)
    return Chart(title, alt, svg)


def pareto_chart(document: Document) -> Chart | None:
    """Return two objectives against each other with their intervals; None where there is only one."""
    if len(document["objectives"]) < 2:
        return None
    first, second = document["objectives"][:2]
    title = f"{second['title']} against {first['title']}; orange: the Pareto front"
    with drawing(HEIGHT * 1.3) as (figure, plot):
        for trial in done(document):
            x, y = trial["values"][:2]
            good = bool(trial["pareto"])
            color = _GOOD if good else _OTHER
            plot.plot(_ends(x), [y["value"]] * 2, color=color, alpha=0.35, linewidth=1.0)
            plot.plot([x["value"]] * 2, _ends(y), color=color, alpha=0.35, linewidth=1.0)
            plot.plot(x["value"], y["value"], "s" if good else "o", color=color, markersize=5 if good else 4)
            if good:
                plot.annotate(
                    str(trial["number"]), (x["value"], y["value"]), (4, 4), textcoords="offset points", fontsize=8
                )
        plot.set_xlabel(f"{shortened(first['title'], 40)} ({first['direction']})")
        plot.set_ylabel(f"{shortened(second['title'], 40)} ({second['direction']})")
        alt = _told_best(document)
        svg = drawn_svg(figure, "pareto", title, alt)
    return Chart(title, alt, svg)


def slice_chart(document: Document, place: int, index: int) -> Chart:
    """Return an objective against one parameter: a point a trial, with its interval."""
    objective = document["objectives"][index]
    axis = axes_of(document)[place]
    title = f"{objective['title']} by {axis.name}"
    with drawing(HEIGHT) as (figure, plot):
        for trial in done(document):
            value = trial["values"][index]
            x = axis.place(trial["parameters"][axis.name])
            good = is_good(document, trial)
            color = _GOOD if good else _OTHER
            plot.plot([x, x], _ends(value), color=color, alpha=0.35, linewidth=1.2)
            plot.plot(x, value["value"], "s" if good else "o", color=color, markersize=4)
        ticks = axis.ticks()
        plot.set_xticks([at for at, _ in ticks], [label for _, label in ticks])
        plot.set_xlim(-0.08, 1.08)
        plot.set_xlabel(shortened(axis.name))
        alt = _told_slice(document, axis.name, index)
        svg = drawn_svg(figure, f"slice{place}-{index}", title, alt)
    return Chart(title, alt, svg)


def _ends(value: Mapping[str, Any]) -> list[float]:
    known = value["value"]
    return [known if value["low"] is None else value["low"], known if value["high"] is None else value["high"]]


def _ranks(document: Document, trials: Sequence[Trial]) -> dict[int, float]:
    """Return how good each trial is by the first objective: 0 the worst, 1 the best."""
    sign = -1.0 if document["objectives"][0]["direction"] == "minimize" else 1.0
    order = sorted(trials, key=lambda trial: sign * trial["values"][0]["value"])
    return {trial["number"]: place / max(1, len(order) - 1) for place, trial in enumerate(order)}


def _told_best(document: Document) -> str:
    told = []
    for trial in done(document):
        if is_good(document, trial):
            parameters = ", ".join(f"{name} {value}" for name, value in trial["parameters"].items())
            values = ", ".join(f"{each['objective']} {each['value']:.3g}" for each in trial["values"])
            told.append(f"Trial {trial['number']}: {parameters}: {values}.")
    return visible(" ".join(told), newlines=False)


def _told_slice(document: Document, name: str, index: int) -> str:
    told = [f"{trial['parameters'][name]}: {trial['values'][index]['value']:.3g}" for trial in done(document)]
    return visible("; ".join(told), newlines=False) + "."
