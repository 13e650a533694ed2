"""``influence score rubrics``: what can be asked by name."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from influence_cli.cli import output
from influence_cli.cli.context import registry_of
from influence_cli.cli.options import AsJson


def rubrics(
    ctx: typer.Context,
    names: Annotated[list[str] | None, typer.Argument(help="Rubrics or tags to show in full.")] = None,
    json: AsJson = False,
) -> None:
    """List rubrics, tags and scorers; with names, show rubrics in full."""
    from influence_cli.scoring.rubric_files import pick_rubrics, shipped_rubrics

    chosen = pick_rubrics(names) if names else list(shipped_rubrics().values())
    scorers = [] if names else [offer.component for offer in registry_of(ctx).offers("scorer") if offer.state == "ok"]
    if json:
        shown = [{"name": each.name, "summary": each.summary} for each in scorers]
        output.emit_json({"schema": "influence.score.rubrics/1", "rubrics": chosen, "scorers": shown})
    elif names:
        for rubric in chosen:
            output.emit_text(f"{rubric.id}: {rubric.asked()}\nAnswers: {', '.join(rubric.choices)}.")
    else:
        _table(chosen, scorers)


def _table(chosen: list[Any], scorers: list[Any]) -> None:
    from rich.table import Table

    from influence_cli.scoring.plan import FIRST_PERSON, METRICS, THIRD_PERSON, WHOLE_PREFERENCE

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("name", "what it asks for", "scope", "tags"):
        table.add_column(heading)
    for rubric in chosen:
        table.add_row(rubric.id, rubric.title, rubric.scope, ", ".join(rubric.tags))
    table.add_row(THIRD_PERSON, "The environment's preference question, of judges", "conversation", WHOLE_PREFERENCE)
    table.add_row(FIRST_PERSON, "The same, of the simulated user in person", "conversation", WHOLE_PREFERENCE)
    table.add_row(METRICS, "The environment's own metrics", "", "")
    for scorer in scorers:
        table.add_row(output.plain(scorer.name), output.plain(scorer.summary), "computed", "computed")
    output.emit(table)
