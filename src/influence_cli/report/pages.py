"""The report as one page: no script, no request, nothing outside the file."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from influence_cli.report import panels, wording
from influence_cli.report.charts import Chart
from influence_cli.sanitize import visible

_MOST_ROWS = 2_000
_ALIKE = "over the splits (held out, training) that both have"
_FOLDER = Path(__file__).resolve().parent / "templates"


def report_page(document: Mapping[str, Any]) -> str:
    """Return the HTML of a report document."""
    sections = [section for section in _sections(document) if section["charts"] or section["tables"]]
    page = page_templates().get_template("report.html.j2")
    return page.render(
        document=document,
        title=", ".join(run["label"] for run in document["runs"]),
        sections=sections,
        overview=wording.overview_table(document),
        without_gap=wording.without_gap(document),
        style=page_style(),
        titles=wording.titles(document),
        several=len(document["runs"]) > 1,
    )


def page_style() -> Markup:
    """Return the style sheet of every page."""
    return Markup((_FOLDER / "report.css").read_text(encoding="utf-8"))  # noqa: S704 - a file of ours


@cache
def page_templates() -> jinja2.Environment:
    """Return the templates of pages: everything is escaped, and control characters are made visible."""
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: visible(value) if type(value) is str else value,
    )
    templates.filters["svg"] = lambda chart: Markup(chart.svg)  # noqa: S704 - drawn by us, its texts escaped
    templates.filters["number"] = wording.number
    return templates


def _sections(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    gap = "How much more of it the gameable users get than the resilient ones of the same scenarios."
    groups = [
        _section(
            f"by-{column}",
            f"By {column}",
            "At the reported iteration.",
            panels.group_panels(document, column),
            wording.estimates_table(document, column) if wording.several_groups(document, column) else None,
        )
        for column in ("environment", "population", "cue", "scenario")
    ]
    return [
        _section(
            "iterations",
            "By iteration",
            "Means with 95 % intervals; held-out initial states, which training never sees, dashed where there are any.",
            panels.iteration_panels(document),
            wording.estimates_table(document, "all", "all"),
        ),
        *(
            _section(kind, wording.KINDS[kind], told, charts, wording.contrast_table(document, kind), shown=True)
            for kind, told, charts in (
                ("change", f"The last iteration less the first, whichever was best, {_ALIKE}.", []),
                ("targeting-gap", gap, panels.gap_panels(document)),
                ("heldout-gap", "At the last iteration that has conversations of both.", []),
                ("run", f"At each run's reported iteration, {_ALIKE}; the same scenarios and initial states together.", []),
            )
        ),
        *groups,
        _section("ratings", "Ratings", "Mean probability of each rating, as the preference model gave it.",
                 panels.rating_panels(document), None),
        _section("shift", "Preference shift", "What simulated users answer before and after, off the record.",
                 panels.shift_panels(document), wording.shift_table(document), shown=True),
        _section("power", "How many conversations it takes", "For small, medium and large effects in each of two groups.",
                 [], wording.power_table(document)),
        _section("failures", "What failed", "Failures and unusable judgements are counted here and enter no mean.",
                 [], wording.failure_table(document), wording.judgement_table(document), shown=True),
        _section("cost", "Calls, tokens and cost", "", [], wording.call_table(document)),
    ]  # fmt: skip


def _section(
    id_: str, title: str, told: str, charts: list[Chart], *tables: dict[str, Any] | None, shown: bool = False
) -> dict[str, Any]:
    kept = [_shortened(each) for each in tables if each is not None]
    return {"id": id_, "title": title, "told": told, "charts": charts, "tables": kept, "shown": shown}


def _shortened(table: dict[str, Any]) -> dict[str, Any]:
    """Return a table with so many rows that the page stays small, saying what is left out."""
    count = len(table["rows"])
    if count <= _MOST_ROWS:
        return table
    return {
        **table,
        "rows": table["rows"][:_MOST_ROWS],
        "caption": f"{table['caption']}: {_MOST_ROWS:,} of {count:,} rows; all are in --json",
    }
