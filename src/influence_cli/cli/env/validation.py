"""``influence env validate``: whether environments are sound."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from influence_cli.cli import output
from influence_cli.cli.context import registry_of
from influence_cli.cli.env.options import Folders, Json


def validate(
    ctx: typer.Context,
    path: Annotated[list[str], typer.Argument(help="Folders or names of environments.")],
    environments_dir: Folders = None,
    json: Json = False,
) -> None:
    """Check environments; every problem is shown with file, line, column and mend."""
    from influence_cli.cli.resolution import find_environments
    from influence_cli.documents import DocumentError

    results: list[dict[str, Any]] = []
    broken = False
    for name in path:
        problems: list[dict[str, Any]] = []
        named = f"./{name}" if Path(name).is_dir() and "/" not in name and not name.startswith(".") else name
        try:
            environment = find_environments(registry_of(ctx), [named], environments_dir or [])[0]
        except DocumentError as error:
            broken = True
            for problem in error.problems:
                problems.append(
                    {
                        "file": str(problem.path),
                        "line": problem.position.line,
                        "column": problem.position.column,
                        "message": problem.message,
                        "hint": problem.hint,
                    }
                )
                output.warn(str(problem))
        else:
            states = len(environment.initial_states())
            output.say(f"{environment.name} is sound: {len(environment.scenarios)} scenarios, {states} initial states.")
        results.append({"environment": name, "sound": not problems, "problems": problems})
    if json:
        output.emit_json({"schema": "influence.env.validate/1", "results": results})
    if broken:
        raise typer.Exit(2)
