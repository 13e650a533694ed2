"""The algorithm that comes with the core."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from influence_cli.plugins.component import Component
from influence_cli.plugins.hookspecs import hookimpl

if TYPE_CHECKING:
    from influence_cli.training.protocol import Algorithm


@hookimpl
def influence_algorithms() -> Iterable[Component[Algorithm]]:
    """Return the scripted learner."""
    from influence_cli.training.scripted import ScriptedLearnerOptions

    return [
        Component(
            name="scripted",
            summary="Learns replies by heart, for the scripted model; for tests and teaching.",
            load=_load_scripted,
            options=ScriptedLearnerOptions,
        )
    ]


def _load_scripted() -> Callable[..., Algorithm]:
    from influence_cli.training.scripted import ScriptedLearner

    return ScriptedLearner
