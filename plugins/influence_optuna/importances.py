"""Importance of parameters, by Optuna's evaluators, over a study in memory that holds a sweep's trials."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import optuna
from optuna.importance import BaseImportanceEvaluator, FanovaImportanceEvaluator, PedAnovaImportanceEvaluator
from optuna.trial import TrialState

from influence_cli.api import Study, TrialRecord
from influence_optuna.options import FanovaOptions, PedAnovaOptions
from influence_optuna.spaces import distributions, to_optuna

_FEWEST = 4
_FEWEST_BEST = 5


class PedAnova:
    """How much the distribution of a parameter among the best trials differs from that among all.

    Source: Watanabe, Bansal and Hutter, PED-ANOVA: Efficiently Quantifying Hyperparameter Importance in Arbitrary Subspaces,
    2023.
    """

    def __init__(self, options: PedAnovaOptions) -> None:
        self._options = options

    def measure(self, study: Study, trials: Sequence[TrialRecord], objective: int) -> Mapping[str, float]:
        """Return the shares; nothing where there are too few trials, or all are alike."""
        if len(trials) < _FEWEST:
            return {}
        share = min(0.5, max(self._options.best_share, _FEWEST_BEST / len(trials)))
        return _measured(PedAnovaImportanceEvaluator(target_quantile=share), study, trials, objective)


class Fanova:
    """How much of a random forest's variance over the space each parameter explains by itself.

    Source: Hutter, Hoos and Leyton-Brown, An Efficient Approach for Assessing Hyperparameter Importance, 2014.
    """

    def __init__(self, options: FanovaOptions) -> None:
        self._options = options

    def measure(self, study: Study, trials: Sequence[TrialRecord], objective: int) -> Mapping[str, float]:
        """Return the shares; nothing where there are too few trials, or all are alike."""
        if len(trials) < _FEWEST:
            return {}
        evaluator = FanovaImportanceEvaluator(n_trees=self._options.trees, seed=self._options.seed)
        return _measured(evaluator, study, trials, objective)


def _measured(
    evaluator: BaseImportanceEvaluator, study: Study, trials: Sequence[TrialRecord], objective: int
) -> Mapping[str, float]:
    values = [trial.readings[objective].value for trial in trials]
    varied = {name for name in study.space if len({str(trial.parameters[name]) for trial in trials}) > 1}
    if len(set(values)) < 2 or not varied:
        return {}
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = {name: study.space[name] for name in study.space if name in varied}
    made = optuna.create_study(direction=study.directions[objective])
    kinds = distributions(space)
    for trial, value in zip(trials, values, strict=True):
        made.add_trial(
            optuna.trial.create_trial(
                state=TrialState.COMPLETE,
                value=value,
                params=to_optuna(space, trial.parameters),
                distributions=kinds,
            )
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on few trials, which whoever shows the shares tells too
        found = optuna.importance.get_param_importances(made, evaluator=evaluator)
    return {name: float(found.get(name, 0.0)) for name in study.space} if sum(found.values()) > 0.0 else {}
