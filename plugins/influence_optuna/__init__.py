"""Searching with Optuna: TPE, NSGA-II, draws that can be pruned; importance by PED-ANOVA and fANOVA.

Only hooks live here; Optuna is imported when a sweep asks for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from influence_cli.api import Component, hookimpl

if TYPE_CHECKING:
    from influence_cli.api import Importance, Searcher

_EXTRA = "influence-cli[optuna]"


def _tpe() -> Callable[..., Searcher]:
    from influence_optuna.searchers import Tpe

    return Tpe


def _nsga2() -> Callable[..., Searcher]:
    from influence_optuna.searchers import Nsga2

    return Nsga2


def _random() -> Callable[..., Searcher]:
    from influence_optuna.searchers import OptunaRandom

    return OptunaRandom


def _ped_anova() -> Callable[..., Importance]:
    from influence_optuna.importances import PedAnova

    return PedAnova


def _fanova() -> Callable[..., Importance]:
    from influence_optuna.importances import Fanova

    return Fanova


@hookimpl
def influence_searchers() -> Iterable[Component[Searcher]]:
    """Return TPE, NSGA-II and random draws."""
    from influence_optuna.options import Nsga2Options, SearcherOptions, TpeOptions

    kinds = (
        ("tpe", "Learns where good trials lie (TPE), for one objective or several.", _tpe, TpeOptions),
        ("nsga2", "Breeds a Pareto front (NSGA-II), for several objectives.", _nsga2, Nsga2Options),
        ("optuna-random", "Draws at random, with Optuna's pruning and storage.", _random, SearcherOptions),
    )
    return [
        Component(name=name, summary=summary, load=load, options=options, requires=("optuna",), extra=_EXTRA)
        for name, summary, load, options in kinds
    ]


@hookimpl
def influence_importances() -> Iterable[Component[Importance]]:
    """Return PED-ANOVA, and fANOVA where scikit-learn is installed too."""
    from influence_optuna.options import FanovaOptions, PedAnovaOptions

    return [
        Component(
            name="ped-anova",
            summary="What sets the best trials apart from all (PED-ANOVA).",
            load=_ped_anova,
            options=PedAnovaOptions,
            requires=("optuna",),
            extra=_EXTRA,
        ),
        Component(
            name="fanova",
            summary="Variance explained by each parameter in a forest (fANOVA).",
            load=_fanova,
            options=FanovaOptions,
            requires=("optuna", "sklearn"),
            extra="influence-cli[optuna]' 'scikit-learn",
        ),
    ]
