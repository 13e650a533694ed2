"""SLURM: tasks as batch jobs, several at once as one array, requeued before their time is up."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from influence_cli.api import Component, hookimpl

if TYPE_CHECKING:
    from influence_cli.api import Launcher


@hookimpl
def influence_launchers() -> Iterable[Component[Launcher]]:
    """Return the launcher of SLURM clusters."""
    from influence_slurm.options import SlurmOptions

    return [
        Component(
            name="slurm",
            summary="Batch jobs of a SLURM cluster, by sbatch, squeue and scancel.",
            load=_load,
            options=SlurmOptions,
        )
    ]


def _load() -> Callable[..., Launcher]:
    from influence_slurm.launcher import SlurmLauncher

    return SlurmLauncher
