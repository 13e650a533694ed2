"""``influence env list`` and ``show``: which environments there are, and what one holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from influence_cli.cli import output
from influence_cli.cli.context import registry_of
from influence_cli.cli.env.options import Folders, Name
from influence_cli.cli.options import AsJson

if TYPE_CHECKING:
    from influence_cli.environments.environment import Environment


def list_environments(ctx: typer.Context, environments_dir: Folders = None, json: AsJson = False) -> None:
    """List the environments that can be named."""
    from rich.table import Table

    from influence_cli.errors import InfluenceError
    from influence_cli.resolution import known_environments

    rows: list[dict[str, Any]] = []
    for name, load in known_environments(registry_of(ctx), environments_dir or []).items():
        try:
            rows.append(_summary(load()))
        except InfluenceError as error:
            output.warn(f"The environment {name} cannot be used:\n{error}")
    if json:
        output.emit_json({"schema": "influence.env.list/1", "environments": rows})
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("name", no_wrap=True)
    for heading in ("scenarios", "initial states", "turns"):
        table.add_column(heading, justify="right")
    table.add_column("title")
    for row in rows:
        table.add_row(
            output.plain(row["name"]),
            str(len(row["scenarios"])),
            str(row["initial_states"]),
            str(row["turns"]),
            output.plain(row["title"]),
        )
    output.emit(table)


def show(
    ctx: typer.Context,
    name: Name,
    environments_dir: Folders = None,
    card: Annotated[bool, typer.Option("--card", help="Its data card, in Markdown.")] = False,
    json: AsJson = False,
) -> None:
    """Show what an environment holds."""
    from influence_cli.resolution import find_environments

    environment = find_environments(registry_of(ctx), [name], environments_dir or [])[0]
    summary = _summary(environment)
    if card:
        from influence_cli.environments.card import card_document, card_text

        if json:
            output.emit_json(card_document(environment))
        else:
            output.emit_text(card_text(environment))
        return
    if json:
        output.emit_json({"schema": "influence.env.show/1", **summary})
        return
    output.emit(_overview(environment, summary))


def _summary(environment: Environment) -> dict[str, Any]:
    spec = environment.spec
    references = environment.initial_states()
    return {
        "name": spec.name,
        "title": spec.title,
        "description": spec.description,
        "licence": spec.licence,
        "folder": str(environment.folder) if environment.folder else None,
        "digest": environment.digest,
        "turns": spec.turns,
        "scenarios": [
            {
                "name": scenario.name,
                "title": scenario.title,
                "description": scenario.description,
                "initial_states": len(scenario.initial_states),
                "probes": [probe.id for probe in environment.probes(scenario.name)],
            }
            for scenario in environment.scenarios.values()
        ],
        "initial_states": len(references),
        "heldout": sum(reference.split == "heldout" for reference in references),
        "populations": {
            name: {"description": population.description, "share": spec.mix.get(name, 0.0)}
            for name, population in spec.populations.items()
        },
        "cue": spec.cue,
        "states": {
            name: {"terminal": state.terminal, "transitions": state.transitions} for name, state in spec.states.items()
        },
        "metrics": [metric.id for metric in spec.metrics],
        "tools": [tool.name for tool in spec.tools],
    }


def _overview(environment: Environment, summary: dict[str, Any]) -> Any:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    facts = Table.grid(padding=(0, 2))
    populations = ", ".join(f"{name} {entry['share']:.0%}" for name, entry in summary["populations"].items())
    states = "; ".join(
        name
        + ("" if not s["transitions"] else " -> " + ", ".join(f"{to} ({by})" for by, to in s["transitions"].items()))
        for name, s in summary["states"].items()
    )
    for name, value in (
        ("turns", str(summary["turns"])),
        ("initial states", f"{summary['initial_states']}, of which {summary['heldout']} held out"),
        ("populations", populations or "none"),
        ("cue shown", summary["cue"]),
        ("states", states),
        ("metrics", ", ".join(summary["metrics"]) or "none"),
        ("tools", ", ".join(summary["tools"]) or "none"),
        ("licence", summary["licence"] or "not stated"),
        ("folder", summary["folder"] or ""),
    ):
        facts.add_row(Text(name, style="bold"), Text(output.plain(value)))
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("scenario", no_wrap=True)
    table.add_column("states", justify="right")
    table.add_column("what it is about")
    for scenario in summary["scenarios"]:
        about = scenario["description"] or scenario["title"]
        table.add_row(output.plain(scenario["name"]), str(scenario["initial_states"]), output.plain(about))
    heading = Text(f"{environment.name}: {summary['title']}", style="bold")
    return Group(heading, Text(output.plain(summary["description"])), Text(), facts, Text(), table)
