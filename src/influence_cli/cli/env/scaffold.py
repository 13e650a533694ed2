"""``influence env new``: a valid environment to start from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from influence_cli.cli import output
from influence_cli.cli.options import AsJson


def new(
    name: Annotated[str, typer.Argument(help="Its name: small letters, digits and hyphens.")],
    out: Annotated[Path, typer.Option("--out", help="The folder to make it in.")] = Path("environments"),
    json: AsJson = False,
) -> None:
    """Write a valid environment to start from."""
    from influence_cli.environments.scaffold import write_scaffold

    folder = write_scaffold(name, out)
    output.say(f"Made {folder}. Next: influence env validate {folder}; influence env preview {folder}")
    if json:
        output.emit_json({"schema": "influence.env.new/1", "name": name, "path": str(folder)})
    else:
        output.emit_text(str(folder))
