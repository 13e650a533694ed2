"""Figures as SVG for a page: text stays text, colours are the page's own variables, and each says in words what it shows.

Matplotlib draws with placeholder colours; they are replaced by ``currentColor`` and by CSS variables, so that one drawing
serves light, dark and print. Runs differ by colour (Okabe and Ito's, made for colour-blind readers), marker and dash.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from influence_cli.errors import InfluenceError
from influence_cli.sanitize import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, FAINT = "#010203", "#010204"
SERIES = tuple(f"#0102{0x10 + index:02x}" for index in range(8))
_MARKERS = "os^DvPX*"
_DASHES = ("solid", "dashed", "dashdot", "dotted")
_WIDTH = 4.3
HEIGHT = 2.6
_ROW = 0.24
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 9.0,
    "font.family": "DejaVu Sans",
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "axes.linewidth": 0.7,
    "legend.frameon": False,
    "text.parse_math": False,
}


@dataclass(frozen=True)
class Series:
    """One run's line or row of points: positions, values, limits; ``index`` is the run's colour and marker."""

    label: str
    index: int
    at: Sequence[float]
    values: Sequence[float]
    low: Sequence[float | None]
    high: Sequence[float | None]
    dash: int = 0


@dataclass(frozen=True)
class Chart:
    """A figure for the page: its title, the sentence for those who do not see it, and the drawing."""

    title: str
    alt: str
    svg: str
    wide: bool = False


def lines(name: str, title: str, series: Sequence[Series], scale: tuple[float, float] | None, across: str) -> Chart:
    """Return lines with bands over a numbered axis."""
    title = visible(title, newlines=False)
    with drawing(HEIGHT) as (figure, axes):
        for each in series:
            color = SERIES[each.index % len(SERIES)]
            marker = _MARKERS[each.index % len(_MARKERS)]
            dash = _DASHES[each.dash % len(_DASHES)]
            axes.plot(each.at, each.values, color=color, marker=marker, markersize=3, linestyle=dash, linewidth=1.4)
            low, high = _limits(each)
            axes.fill_between(each.at, low, high, color=color, alpha=0.18, linewidth=0)
        _scaled(axes.set_ylim, scale)
        axes.set_xlabel(across)
        _whole_ticks(axes.xaxis)
        svg = drawn_svg(figure, name, title, alt := _told(series, across))
    return Chart(title, alt, svg)


def points(name: str, title: str, groups: Sequence[str], series: Sequence[Series], scale: Any, zero: bool) -> Chart:
    """Return one row of points with intervals for each group; ``zero`` draws the line of no difference."""
    title = visible(title, newlines=False)
    height = 0.75 + _ROW * max(2, len(groups)) * max(1.0, 0.62 * len(series))
    with drawing(height) as (figure, axes):
        for order, each in enumerate(series):
            rows = [len(groups) - 1 - at - _offset(series, order, at) for at in each.at]
            low, high = _limits(each)
            color = SERIES[each.index % len(SERIES)]
            axes.hlines(rows, low, high, color=color, linewidth=1.6)
            axes.plot(each.values, rows, _MARKERS[each.index % len(_MARKERS)], color=color, markersize=4.5)
        axes.set_yticks(range(len(groups)), [shortened(group) for group in reversed(groups)])
        axes.set_ylim(-0.6, len(groups) - 0.4)
        axes.grid(visible=False, axis="y")
        if zero:
            axes.axvline(0.0, color=INK, linewidth=0.8)
        _scaled(axes.set_xlim, scale)
        svg = drawn_svg(figure, name, title, alt := _told(series, groups))
    return Chart(title, alt, svg)


def bars(name: str, title: str, choices: Sequence[str], series: Sequence[Series]) -> Chart:
    """Return grouped bars of shares, a group for each choice."""
    title = visible(title, newlines=False)
    with drawing(HEIGHT) as (figure, axes):
        width = 0.8 / len(series)
        for order, each in enumerate(series):
            at = [position - 0.4 + width * (order + 0.5) for position in each.at]
            color = SERIES[each.index % len(SERIES)]
            axes.bar(at, each.values, width * 0.92, color=color, alpha=0.45 if each.dash else 1.0)
        axes.set_xticks(range(len(choices)), [shortened(choice) for choice in choices])
        axes.grid(visible=False, axis="x")
        axes.set_ylabel("share")
        svg = drawn_svg(figure, name, title, alt := _told(series, choices))
    return Chart(title, alt, svg)


def _offset(series: Sequence[Series], order: int, at: float) -> float:
    """Return how far below its line a point stands, so that the runs of one group do not cover each other."""
    here = [number for number, each in enumerate(series) if at in each.at]
    return (here.index(order) - (len(here) - 1) / 2) * min(0.26, 0.7 / len(here))


@contextmanager
def drawing(height: float, width: float = _WIDTH) -> Iterator[tuple[Figure, Axes]]:
    """Open a figure of this style; height and width in inches. InfluenceError without matplotlib."""
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure as Drawing
    except ImportError:
        raise InfluenceError("Figures need matplotlib.", hint="pip install 'influence-cli[report]'") from None
    with mpl.rc_context(_STYLE):
        figure = Drawing(figsize=(width, height), layout="constrained")
        figure.patch.set_alpha(0.0)
        axes = figure.add_subplot()
        axes.patch.set_alpha(0.0)
        yield figure, axes


def _limits(series: Series) -> tuple[list[float], list[float]]:
    pairs = list(zip(series.values, series.low, series.high, strict=True))
    return [v if low is None else low for v, low, _ in pairs], [v if high is None else high for v, _, high in pairs]


def _scaled(limit: Any, scale: tuple[float, float] | None) -> None:
    if scale is not None:
        margin = 0.04 * (scale[1] - scale[0])
        limit(scale[0] - margin, scale[1] + margin)


def _whole_ticks(axis: Any) -> None:
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(integer=True, nbins=8))


def shortened(text: str, longest: int = 26) -> str:
    """Return ``text`` as one harmless line of at most so many characters."""
    text = visible(text, newlines=False)
    return text if len(text) <= longest else f"{text[: longest - 1]}\u2026"


def _told(series: Sequence[Series], places: str | Sequence[str]) -> str:
    """Return what the figure shows, in words: a line by its ends, points one by one."""
    sentences = []
    for each in series:
        if isinstance(places, str):
            ends = list(zip(each.at, each.values, strict=True))
            first, last = ends[0], ends[-1]
            sentence = f"{first[1]:.2f} at {places} {first[0]:g}"
            if last != first:
                sentence += f", {last[1]:.2f} at {places} {last[0]:g}"
        else:
            sentence = ", ".join(
                f"{places[int(at)]} {value:.2f}" for at, value in zip(each.at, each.values, strict=True)
            )
        sentences.append(f"{each.label}: {sentence}.")
    return visible(" ".join(sentences), newlines=False)


def drawn_svg(figure: Figure, name: str, title: str, alt: str) -> str:
    """Return the figure as inline SVG whose identifiers begin with ``fig-`` and ``name``."""
    import matplotlib as mpl

    name = f"fig-{name}"
    text = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": name}):
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    drawn = text.getvalue()
    drawn = drawn[drawn.index("<svg") :].strip()
    drawn = re.sub(r"<metadata>.*?</metadata>\s*", "", drawn, flags=re.DOTALL)
    drawn = re.sub(r'(?<=\bid=")', f"{name}-", drawn)
    drawn = re.sub(r'(?<=href="#)|(?<=url\(#)', f"{name}-", drawn)
    for color, ours in _colors().items():
        drawn = drawn.replace(color, ours)
    drawn = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", drawn)
    drawn = re.sub(r"\n\s*", "\n", drawn)
    head = f'<title id="{name}-title">{escape(title)}</title><desc id="{name}-desc">{escape(alt)}</desc>'
    opening = f'<svg role="img" aria-labelledby="{name}-title {name}-desc" class="chart"'
    return re.sub(r"<svg(.*?)>", lambda found: f"{opening}{found[1]}>{head}", drawn, count=1, flags=re.DOTALL)


def _colors() -> Mapping[str, str]:
    series = {color: f"var(--c{index})" for index, color in enumerate(SERIES)}
    return {INK: "currentColor", FAINT: "var(--grid)", **series}
