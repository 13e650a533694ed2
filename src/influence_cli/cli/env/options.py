"""Options that several ``influence env`` commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Folders = Annotated[list[Path] | None, typer.Option("--environments-dir", help="A folder of environments.")]
Name = Annotated[str, typer.Argument(help="An environment's name or folder.")]
Model = Annotated[str | None, typer.Option("--model", "-m", help="BACKEND:MODEL[@ADAPTER].")]
