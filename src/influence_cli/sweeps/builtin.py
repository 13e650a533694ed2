"""The searchers and the measure of importance that come with the core."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from influence_cli.plugins.component import Component
from influence_cli.plugins.hookspecs import hookimpl

if TYPE_CHECKING:
    from influence_cli.sweeps.protocol import Importance, Searcher


@hookimpl
def influence_searchers() -> Iterable[Component[Searcher]]:
    """Return grid and random."""
    from influence_cli.sweeps.searchers import NoOptions

    return [
        Component(name="grid", summary="Every combination of lists and whole numbers.", load=_grid, options=NoOptions),
        Component(name="random", summary="Draws that do not depend on each other.", load=_random, options=NoOptions),
    ]


@hookimpl
def influence_importances() -> Iterable[Component[Importance]]:
    """Return the variance that each parameter explains by itself."""
    from influence_cli.sweeps.searchers import NoOptions

    summary = "Share of variance that each parameter explains by itself."
    return [Component(name="variance", summary=summary, load=_variance, options=NoOptions)]


def _grid() -> Callable[..., Searcher]:
    from influence_cli.sweeps.searchers import Grid

    return Grid


def _random() -> Callable[..., Searcher]:
    from influence_cli.sweeps.searchers import Random

    return Random


def _variance() -> Callable[..., Importance]:
    from influence_cli.sweeps.importance import VarianceImportance

    return VarianceImportance
