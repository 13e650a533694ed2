"""What ``--searcher-option key=value`` can set."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from influence_cli.api import Frozen


class SearcherOptions(Frozen):
    """Options of every searcher of Optuna."""

    storage: str | None = Field(
        default=None, description="Address of an Optuna storage (SQLAlchemy); None: optuna.db in the sweep's folder."
    )
    pruner: Literal["none", "median", "halving"] = Field(
        default="none",
        description="Gives a trial up after an iteration: below the median of others, or not in the best part (ASHA).",
    )
    warmup_trials: int = Field(default=5, ge=1, description="median: trials that must be done before any is given up.")
    warmup_iterations: int = Field(default=1, ge=1, description="The first iteration after which one may be given up.")
    reduction: int = Field(default=2, ge=2, description="halving: one of so many goes on at each rung.")


class TpeOptions(SearcherOptions):
    """Options of ``tpe``."""

    startup_trials: int = Field(default=8, ge=1, description="Random draws before it begins to learn.")
    multivariate: bool = Field(default=True, description="Look at parameters together, not one by one.")


class Nsga2Options(SearcherOptions):
    """Options of ``nsga2``."""

    population: int = Field(default=8, ge=2, description="Trials of one generation.")


class PedAnovaOptions(Frozen):
    """Options of ``ped-anova``."""

    best_share: float = Field(
        default=0.1, gt=0.0, lt=1.0, description="Share of trials that count as best; at least five do, half at most."
    )


class FanovaOptions(Frozen):
    """Options of ``fanova``."""

    trees: int = Field(default=64, ge=1, description="Of the forest.")
    seed: int = Field(default=0, ge=0, lt=2**32, description="Of the forest.")
