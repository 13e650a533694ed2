"""``influence score``: judge a run, list what can be asked, hold judges against people. One module a command."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from influence_cli.cli.score.calibrating import calibrate
from influence_cli.cli.score.listing import rubrics
from influence_cli.cli.score.scoring import score

_DEFAULT = "run"


class DefaultCommandGroup(TyperGroup):
    """A group that takes what is no command of its own for the arguments of its default command."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Return the arguments, the default command's name before them where none is named."""
        if not args or args[0] not in self.commands:
            args = [_DEFAULT, *args]
        rest: list[str] = super().parse_args(ctx, args)
        return rest


class DefaultCommand(TyperCommand):
    """A default command, whose help shows how it is called: without a name of its own."""

    def get_usage(self, ctx: Any) -> str:
        """Return the usage line."""
        return super().get_usage(ctx).replace(f" {_DEFAULT} ", " ", 1)


app = typer.Typer(cls=DefaultCommandGroup, help="Judge a run's conversations, and judges by people's labels.")
app.command(_DEFAULT, cls=DefaultCommand, no_args_is_help=True)(score)
app.command()(calibrate)
app.command()(rubrics)
