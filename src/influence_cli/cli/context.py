"""What commands get from the command line around them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import typer

    from influence_cli.plugins.registry import PluginRegistry


def registry_of(ctx: typer.Context) -> PluginRegistry:
    """Return the plugins of this process."""
    registry: PluginRegistry = ctx.find_root().obj
    return registry
