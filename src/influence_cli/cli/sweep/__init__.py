"""``influence sweep``: many runs over a space of settings; show, report, best. One module a command."""

from __future__ import annotations

import typer

from influence_cli.cli.groups import DEFAULT, DefaultCommand, DefaultCommandGroup
from influence_cli.cli.sweep.running import sweep
from influence_cli.cli.sweep.showing import best, report, show

app = typer.Typer(cls=DefaultCommandGroup, help="Search settings by many runs, and see which of them matter.")
app.command(DEFAULT, cls=DefaultCommand, no_args_is_help=True)(sweep)
app.command()(show)
app.command()(best)
app.command()(report)
