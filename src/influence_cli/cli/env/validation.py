"""``influence env validate``: whether environments are sound."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from influence_cli.cli import output
from influence_cli.cli.context import registry_of
from influence_cli.cli.env.options import Folders
from influence_cli.cli.options import AsJson


def validate(
    ctx: typer.Context,
    path: Annotated[list[str], typer.Argument(help="Folders or names of environments, or files of theirs.")],
    environments_dir: Folders = None,
    json: AsJson = False,
) -> None:
    """Check environments; every problem is shown with file, line, column and mend."""
    from influence_cli.documents import DocumentError
    from influence_cli.environments.card import counted
    from influence_cli.errors import InfluenceError
    from influence_cli.resolution import find_environments

    results: list[dict[str, Any]] = []
    broken = False
    for name in dict.fromkeys(_folder_of(each) for each in path):
        problems: list[dict[str, Any]] = []
        try:
            environment = find_environments(registry_of(ctx), [name], environments_dir or [])[0]
        except DocumentError as error:
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
        except InfluenceError as error:
            problems.append(
                {"file": name, "line": None, "column": None, "message": str(error.args[0]), "hint": error.hint or ""}
            )
            output.warn(str(error))
        else:
            states = len(environment.initial_states())
            found = f"{counted(len(environment.scenarios), 'scenario')}, {counted(states, 'initial state')}"
            output.say(f"{environment.name} is sound: {found}.")
        broken = broken or bool(problems)
        results.append({"environment": name, "sound": not problems, "problems": problems})
    if json:
        output.emit_json({"schema": "influence.env.validate/1", "results": results})
    if broken:
        raise typer.Exit(2)


def _folder_of(name: str) -> str:
    """Return the folder of an environment for a file in it, as a pre-commit hook gives them; other names as they are."""
    path = Path(name)
    if path.is_file():
        folder = path.parent.parent if path.parent.name == "scenarios" else path.parent
        return f"./{folder}" if not folder.is_absolute() else str(folder)
    return f"./{name}" if path.is_dir() and "/" not in name and not name.startswith(".") else name
