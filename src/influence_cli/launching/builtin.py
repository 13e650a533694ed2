"""The launcher that comes with the core."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from influence_cli.plugins.component import Component
from influence_cli.plugins.hookspecs import hookimpl

if TYPE_CHECKING:
    from influence_cli.launching.protocol import Launcher


@hookimpl
def influence_launchers() -> Iterable[Component[Launcher]]:
    """Return the launcher of this machine."""
    from influence_cli.launching.options import LocalOptions

    return [
        Component(
            name="local",
            summary="Processes on this machine, each with GPUs of its own.",
            load=_load_local,
            options=LocalOptions,
        )
    ]


def _load_local() -> Callable[..., Launcher]:
    from influence_cli.launching.local import LocalLauncher

    return LocalLauncher
