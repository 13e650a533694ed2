"""Ray: tasks placed on a cluster, or on this machine, by the GPUs and CPUs that they ask for."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from influence_cli.api import Component, hookimpl

if TYPE_CHECKING:
    from influence_cli.api import Launcher


@hookimpl
def influence_launchers() -> Iterable[Component[Launcher]]:
    """Return the launcher of Ray clusters."""
    from influence_ray.options import RayOptions

    return [
        Component(
            name="ray",
            summary="Actors of a Ray cluster, each minding one process.",
            load=_load,
            options=RayOptions,
            requires=("ray",),
            extra="influence-cli[ray]",
        )
    ]


def _load() -> Callable[..., Launcher]:
    from influence_ray.launcher import RayLauncher

    return RayLauncher
