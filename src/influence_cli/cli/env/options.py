"""Options that several ``influence env`` commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Folders = Annotated[list[Path] | None, typer.Option("--environments-dir", help="A folder of environments.")]
Json = Annotated[bool, typer.Option("--json", help="As JSON on stdout.")]
Name = Annotated[str, typer.Argument(help="An environment's name or folder.")]
Seed = Annotated[int, typer.Option("--seed", help="From which every draw derives.")]
Model = Annotated[str | None, typer.Option("--model", "-m", help="BACKEND:MODEL[@ADAPTER].")]
BaseUrl = Annotated[str | None, typer.Option("--base-url", help="Address of an OpenAI-compatible server.")]
Options = Annotated[list[str] | None, typer.Option("--option", "-o", help="KEY=VALUE for the backend.")]
