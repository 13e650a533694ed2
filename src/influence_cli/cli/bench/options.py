"""Options that several ``influence bench`` commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Model = Annotated[str | None, typer.Option("--model", "-m", help="BACKEND:MODEL[@ADAPTER] that is tested.")]
Judge = Annotated[
    str | None, typer.Option("--judge", help="BACKEND:MODEL that classifies; else the one that is tested.")
]
Prompts = Annotated[Path | None, typer.Option("--prompts", help="A file of your own, in JSON lines.")]
Items = Annotated[int | None, typer.Option("--n", "-n", min=1, help="Only the first so many items.")]
Concurrency = Annotated[int, typer.Option("--concurrency", min=1, help="Questions at once.")]
Out = Annotated[Path | None, typer.Option("--out", help="Folder of answers and results; else bench/NAME-MODEL.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say how many calls it takes, and do nothing.")]
Json = Annotated[bool, typer.Option("--json", help="Results as JSON on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]
