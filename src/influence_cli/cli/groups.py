"""Groups of commands that have a default one: ``influence score RUN`` beside ``influence score calibrate``."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand, TyperGroup

DEFAULT = "run"


class DefaultCommandGroup(TyperGroup):
    """A group that takes what is no command of its own for the arguments of its default command."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Return the arguments, the default command's name before them where none is named."""
        if not args or args[0] not in self.commands:
            args = [DEFAULT, *args]
        rest: list[str] = super().parse_args(ctx, args)
        return rest


class DefaultCommand(TyperCommand):
    """A default command, whose help shows how it is called: without a name of its own."""

    def get_usage(self, ctx: Any) -> str:
        """Return the usage line."""
        return super().get_usage(ctx).replace(f" {DEFAULT} ", " ", 1)
