"""``influence score``: judge a run, list what can be asked, hold judges against people. One module a command."""

from __future__ import annotations

import typer

from influence_cli.cli.groups import DEFAULT, DefaultCommand, DefaultCommandGroup
from influence_cli.cli.score.calibrating import calibrate
from influence_cli.cli.score.listing import rubrics
from influence_cli.cli.score.scoring import score

app = typer.Typer(cls=DefaultCommandGroup, help="Judge a run's conversations, and judges by people's labels.")
app.command(DEFAULT, cls=DefaultCommand, no_args_is_help=True)(score)
app.command()(calibrate)
app.command()(rubrics)
