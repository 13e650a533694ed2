"""Reward, harm and targeting gap over the iterations of a run, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from textual.app import ComposeResult
from textual.message import Message
from textual.widgets import Footer

from influence_cli.errors import InfluenceError
from influence_cli.schemas.records import GAMEABLE, RESILIENT
from influence_cli.scoring.statistics import Interval, Sample, difference_interval, mean_interval
from influence_cli.store.iterations import IterationValues, compared_splits, iteration_values
from influence_cli.store.reader import RunReader
from influence_cli.viewer.charts import Point, axis, interval_line
from influence_cli.viewer.events import TroubleMet
from influence_cli.viewer.screens.listing import ViewerScreen
from influence_cli.viewer.source import RunSource
from influence_cli.viewer.widgets.lines import Lines, LinesView
from influence_cli.viewer.widgets.title_bar import TitleBar
from influence_cli.viewer.workers import run_beside

_LEFT, _RIGHT = 10, 24


@dataclass(frozen=True)
class Chart:
    """Estimates under a title; ``zero`` marks where nothing is."""

    title: str
    points: tuple[Point, ...]
    zero: bool = False
    note: str = ""


@dataclass
class ChartsRead(Message):
    """What the iterations come to."""

    charts: tuple[Chart, ...]


class ChartsScreen(ViewerScreen):
    """One line an iteration."""

    HELP_TITLE: ClassVar[str] = "Iterations"

    def __init__(self, source: RunSource) -> None:
        super().__init__()
        self.source = source

    def compose(self) -> ComposeResult:
        """Return title, charts and keys."""
        yield TitleBar()
        yield LinesView()
        yield Footer(compact=True, show_command_palette=False)

    def on_mount(self) -> None:
        """Read the run."""
        self.query_one(TitleBar).text = f"{self.source.name} \u2022 iterations"
        self.query_one(LinesView).show(lambda _cells: [[("reading ...", "faint")]])
        self.query_one(LinesView).focus()
        run_beside(self, self._read, exclusive=True)

    async def _read(self) -> None:
        try:
            charts = await self.source.slow.ask(lambda table: run_charts(table.run))
        except InfluenceError as error:
            self.post_message(TroubleMet(str(error)))
        else:
            self.post_message(ChartsRead(charts))

    def on_charts_read(self, message: ChartsRead) -> None:
        """Draw."""
        self.query_one(LinesView).show(lambda cells: chart_lines(message.charts, cells))


def run_charts(run: RunReader) -> tuple[Chart, ...]:
    """Return the charts of a run: rating, harm, targeting gap in both; a gap only where there are both populations."""
    splits = compared_splits(run)
    iterations = list(iteration_values(run, splits))
    of = ", held-out initial states" if splits == ("heldout",) else ""
    minus = f"{GAMEABLE[0]} minus {RESILIENT[0]}"
    charts = [
        Chart(f"reward (mean rating){of}", _means(iterations, "ratings")),
        Chart(f"harm (mean veto){of}", _means(iterations, "vetoes")),
        Chart(f"targeting gap in rating ({minus}){of}", _gaps(iterations, "ratings"), zero=True),
        Chart(f"targeting gap in harm ({minus}){of}", _gaps(iterations, "vetoes"), zero=True),
    ]
    return tuple(charts)


def _means(iterations: Sequence[IterationValues], name: str) -> tuple[Point, ...]:
    points = []
    for each in iterations:
        sample, _ = _sample(each, name)
        if len(sample):
            points.append(_point(each.iteration, mean_interval(sample)))
    return tuple(points)


def _gaps(iterations: Sequence[IterationValues], name: str) -> tuple[Point, ...]:
    points = []
    for each in iterations:
        sample, populations = _sample(each, name)
        gameable, resilient = (_part(sample, np.isin(populations, names)) for names in (GAMEABLE, RESILIENT))
        if len(gameable) and len(resilient):
            points.append(_point(each.iteration, difference_interval(gameable, resilient)))
    return tuple(points)


def _sample(each: IterationValues, name: str) -> tuple[Sample, npt.NDArray[np.str_]]:
    """Return the values that there are, and the population of each."""
    values: Sequence[float | None] = getattr(each, name)
    kept = [i for i, value in enumerate(values) if value is not None]
    numbers = [value for value in values if value is not None]
    sample = Sample.named(numbers, [each.scenarios[i] for i in kept], [each.states[i] for i in kept])
    return sample, np.array([each.populations[i] or "" for i in kept], dtype=np.str_)


def _part(sample: Sample, mask: npt.NDArray[np.bool_]) -> Sample:
    return Sample(sample.values[mask], sample.scenarios[mask], sample.states[mask])


def _point(iteration: int, interval: Interval) -> Point:
    return Point(f"iter {iteration}", interval.value, interval.low, interval.high)


def chart_lines(charts: Sequence[Chart], cells: int) -> Lines:
    """Return charts as lines, ``cells`` wide."""
    lines: Lines = []
    room = max(10, cells - _LEFT - _RIGHT)
    for chart in charts:
        lines.append([(chart.title[:cells], "heading")])
        if not chart.points:
            lines += [[("  nothing to show: no conversation has it"[:cells], "faint")], []]
            continue
        low, high = axis(chart.points, zero=chart.zero)
        for point in chart.points:
            drawn = interval_line(point, low, high, room, zero=chart.zero)
            told = f" {point.value:.3f} [{point.low:.3f}, {point.high:.3f}]"
            lines.append([(point.name.ljust(_LEFT), "strong"), (drawn, "bar"), (told[:_RIGHT], "text")])
        ends = f"{low:.2f}".ljust(room - 6) + f"{high:.2f}".rjust(6)
        lines += [[(" " * _LEFT + ends, "faint")], []]
    lines.append(
        [("95 % intervals, scenarios resampled whole (initial states under five scenarios)."[:cells], "faint")]
    )
    return lines
