"""``influence env import``: environments of the published project as ours."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from influence_cli.cli import output
from influence_cli.cli.options import AsJson


def import_environment(
    folder: Annotated[
        Path, typer.Argument(help="A folder with _master_config.yaml and JSON files.", exists=True, file_okay=False)
    ],
    out: Annotated[Path | None, typer.Option("--out", help="The folder to make; else environments/NAME.")] = None,
    veto: Annotated[str, typer.Option("--veto", help="Which veto: normal, five_point or constitutional.")] = "normal",
    prefix: Annotated[
        list[str] | None, typer.Option("--prefix", help="A further prefix of file names that says the kind of user.")
    ] = None,
    json: AsJson = False,
) -> None:
    """Write an environment of the published project (arXiv 2411.02306) as one of ours, and say what became of what."""
    from influence_cli.environments.card import counted
    from influence_cli.environments.loading import load_environment
    from influence_cli.environments.published import import_published, slug

    target = out or Path("environments") / slug(folder.resolve().name, "imported")
    report = import_published(folder, target, veto=veto, prefixes=prefix or ())
    environment = load_environment(target)
    if json:
        output.emit_json(
            {
                "schema": "influence.env.import/1",
                "environment": environment.name,
                "folder": str(target),
                "scenarios": report.scenarios,
                "initial_states": report.initial_states,
                "mapped": [{"there": there, "here": here} for there, here in report.mapped],
                "unplaced": [
                    {"there": there, "why": why, "times": times} for (there, why), times in report.left.items()
                ],
            }
        )
        return
    found = f"{counted(report.scenarios, 'scenario')}, {counted(report.initial_states, 'initial state')}"
    output.emit_text(f"{target}: {found}; valid.")
    output.emit_text("\nWhat became of what:")
    for there, here in report.mapped:
        output.emit_text(f"  {output.plain(there)} -> {output.plain(here)}")
    output.emit_text("\nWhat had no place:" if report.unplaced else "\nEverything found its place.")
    for (there, why), times in report.left.items():
        often = f" ({times} times)" if times > 1 else ""
        output.emit_text(f"  {output.plain(there)}: {output.plain(why)}{often}")
