"""Searchers that keep an Optuna study, one trial of it for each trial of the sweep.

Invariant: what is proposed depends on the study's seed, the trial's number and the trials before, never on the process;
a trial of Optuna's carries the sweep's number from the moment it exists, so that after a kill it is found again.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, Trial, TrialState

from influence_cli.api import InfluenceError, Parameters, Study, TrialRecord, derive_seed
from influence_optuna.options import Nsga2Options, SearcherOptions, TpeOptions
from influence_optuna.spaces import distributions, from_optuna, to_optuna
from influence_optuna.storages import open_study

_NUMBER = "trial"
_STATES = {"done": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}


class OptunaRandom:
    """Draws at random; the other searchers differ by their sampler."""

    def __init__(self, study: Study, options: SearcherOptions) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        if study.trials is None:
            raise InfluenceError("This searcher has no end of its own.", hint="Add --trials 24.")
        if options.pruner != "none" and len(study.objectives) > 1:
            raise InfluenceError("Trials can be pruned by one objective only.", hint="Leave --also or the pruner out.")
        self._wanted = study
        self._options = options
        self._distributions = distributions(study.space)
        storage = options.storage or f"sqlite:///{(Path(study.folder) / 'optuna.db').resolve()}"
        self._storage, self._study = open_study(study, storage, own=options.storage is None)
        self._study.pruner = self._pruner()
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if _NUMBER not in trial.user_attrs:  # a kill came before it had its number
                self._study.tell(trial.number, state=TrialState.FAIL)

    def sampler(self, seed: int) -> BaseSampler:
        """Return what draws one trial."""
        return RandomSampler(seed=seed)

    def ask(self, number: int) -> Parameters | None:
        """Return the parameters of trial ``number``: drawn now, or as they were drawn before a kill."""
        with _quiet():
            self._study.sampler = self.sampler(derive_seed("sweep", self._wanted.seed, number) % 2**32)
            known = self._find(number)
            if known is None:
                made = self._study.ask()
                made.set_user_attr(_NUMBER, number)
            else:
                made = Trial(self._study, known._trial_id)  # noqa: SLF001 - the one way to go on with a trial
            for name, distribution in self._distributions.items():
                _suggest(made, name, distribution)
            return from_optuna(self._wanted.space, made.params)

    def report(self, number: int, step: int, value: float) -> bool:
        """Keep a value; return what the pruner says after it."""
        known = self._find(number)
        if known is None or known.state.is_finished() or self._options.pruner == "none":
            return False
        with _quiet():
            trial = Trial(self._study, known._trial_id)  # noqa: SLF001 - as above
            if step not in known.intermediate_values:
                trial.report(value, step)
            return step >= self._options.warmup_iterations and bool(trial.should_prune())

    def tell(self, trial: TrialRecord) -> None:
        """Finish Optuna's trial; make it where the storage has none."""
        known = self._find(trial.number)
        state = _STATES[trial.state]
        if known is not None and known.state.is_finished():
            if known.state != TrialState.FAIL or state == TrialState.FAIL:
                return
            known = None  # it failed, and was tried again: Optuna's own trial stays as it is, and another tells the end
        values = [reading.value for reading in trial.readings] if trial.state == "done" else None
        with _quiet():
            if known is not None and set(known.params) == set(self._distributions):
                self._study.tell(known.number, values, state)
                return
            self._study.add_trial(
                optuna.trial.create_trial(
                    state=state,
                    values=values,
                    params=to_optuna(self._wanted.space, trial.parameters),
                    distributions=self._distributions,
                    user_attrs={_NUMBER: trial.number},
                    intermediate_values=trial.steps if self._options.pruner != "none" else None,
                )
            )

    def close(self) -> None:
        """Close the storage."""
        self._storage.remove_session()
        self._storage.engine.dispose()

    def _find(self, number: int) -> FrozenTrial | None:
        """Return Optuna's trial of that number of the sweep."""
        found = [t for t in self._study.get_trials(deepcopy=False) if t.user_attrs.get(_NUMBER) == number]
        return found[-1] if found else None

    def _pruner(self) -> BasePruner:
        options = self._options
        if options.pruner == "median":
            return MedianPruner(n_startup_trials=options.warmup_trials, n_warmup_steps=options.warmup_iterations)
        if options.pruner == "halving":
            return SuccessiveHalvingPruner(
                min_resource=options.warmup_iterations, reduction_factor=options.reduction, bootstrap_count=0
            )
        return NopPruner()


class Tpe(OptunaRandom):
    """Learns from the trials before where good ones lie."""

    def __init__(self, study: Study, options: TpeOptions) -> None:
        self._tpe = options
        super().__init__(study, options)

    def sampler(self, seed: int) -> BaseSampler:
        """Return a sampler that takes running trials for bad ones, so that parallel trials keep apart."""
        return TPESampler(
            seed=seed,
            n_startup_trials=self._tpe.startup_trials,
            multivariate=self._tpe.multivariate,
            constant_liar=True,
        )


class Nsga2(OptunaRandom):
    """Breeds each generation from the best of the one before."""

    def __init__(self, study: Study, options: Nsga2Options) -> None:
        self._nsga2 = options
        super().__init__(study, options)

    def sampler(self, seed: int) -> BaseSampler:
        """Return a sampler of one generation's size."""
        return NSGAIISampler(seed=seed, population_size=self._nsga2.population)


def _suggest(trial: Trial, name: str, distribution: Any) -> None:
    if isinstance(distribution, optuna.distributions.CategoricalDistribution):
        trial.suggest_categorical(name, distribution.choices)
    elif isinstance(distribution, optuna.distributions.IntDistribution):
        trial.suggest_int(name, distribution.low, distribution.high)
    else:
        trial.suggest_float(name, distribution.low, distribution.high, log=distribution.log)


class _quiet(warnings.catch_warnings):  # noqa: N801 - used as a function
    """Lets Optuna's notes on what is experimental go nowhere."""

    def __enter__(self) -> None:
        super().__enter__()
        warnings.simplefilter("ignore", ExperimentalWarning)
