"""A sweep as one page: no script, no request, nothing outside the file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from influence_cli import __version__
from influence_cli.report.pages import page_style, page_templates
from influence_cli.report.sweep_charts import done, importance_chart, parallel_chart, pareto_chart, slice_chart
from influence_cli.sweeps.figures import space_text

Document = Mapping[str, Any]


def sweep_page(document: Document) -> str:
    """Return the HTML of an object ``influence.sweep.show/1``."""
    page = page_templates().get_template("sweep.html.j2")
    return page.render(
        document=document,
        program=__version__,
        heading=_heading(document),
        space=_space(document),
        sections=_sections(document),
        style=page_style(),
    )


def _heading(document: Document) -> str:
    counts = document["counts"]
    told = ", ".join(f"{counts[state]} {state}" for state in ("done", "pruned", "failed", "running") if counts[state])
    aims = "; ".join(f"{each['title']}: {each['direction']}" for each in document["objectives"])
    return f"Trials: {told or 'none'}. {aims}."


def _space(document: Document) -> dict[str, Any]:
    rows = [[each["name"], each["setting"], space_text(each["space"])] for each in document["space"]]
    return {"caption": "What was searched", "head": ["name", "setting", "space"], "left": 3, "rows": rows}


def _sections(document: Document) -> list[dict[str, Any]]:
    sections = []
    if done(document):
        measured = [importance_chart(document, each, index) for index, each in enumerate(document["objectives"])]
        front = pareto_chart(document)
        slices = [
            slice_chart(document, place, index)
            for index in range(len(document["objectives"]))
            for place in range(len(document["space"]))
        ]
        sections = [
            _section("parallel", "All trials at once", "", charts=[parallel_chart(document)]),
            _section(
                "importance",
                "What matters",
                f"Shares by {document['importance']['method']}, in all 1 for each objective.",
                charts=[chart for chart in measured if chart is not None],
            ),
            _section("pareto", "Pareto front", "", charts=[front] if front else []),
            _section("slices", "Parameter by parameter", "With 95 % intervals.", charts=slices),
        ]
    good = [trial for trial in document["trials"] if trial["pareto"]]
    commands = [{"title": f"Trial {trial['number']} again", "text": trial["again"]} for trial in good]
    sections.append(_section("trials", "Trials", "", tables=[_trials(document)], commands=commands))
    return [section for section in sections if section["charts"] or section["tables"]]


def _section(id_: str, title: str, told: str, **parts: Any) -> dict[str, Any]:
    return {"id": id_, "title": title, "told": told, "charts": [], "tables": [], "commands": [], **parts}


def _trials(document: Document) -> dict[str, Any]:
    names = [each["name"] for each in document["space"]]
    objectives = [each["name"] for each in document["objectives"]]
    rows = []
    for trial in document["trials"]:
        values = [_value(each) for each in trial["values"]] or [trial["reason"] or "", *[""] * (len(objectives) - 1)]
        over = ", ".join(dict.fromkeys(each["over"] for each in trial["values"]))
        front = "yes" if trial["pareto"] else ""
        parameters = [_number(trial["parameters"][name]) for name in names]
        rows.append([str(trial["number"]), trial["state"], *parameters, *values, over, front, f"{trial['tokens']:,}"])
    head = ["trial", "state", *names, *(f"{name} (95 %)" for name in objectives), "over", "front", "tokens"]
    return {"caption": "Every trial", "head": head, "left": 2, "rows": rows}


def _value(reading: Mapping[str, Any]) -> str:
    low, high = reading["low"], reading["high"]
    return _number(reading["value"]) + ("" if low is None else f" ({_number(low)} to {_number(high)})")


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
