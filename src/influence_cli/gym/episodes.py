"""Which conversations an environment of this kind has, one after the other."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from influence_cli.environments.environment import Environment, Episode, StateReference
from influence_cli.environments.sampling import episodes
from influence_cli.errors import InfluenceError, UnknownNameError
from influence_cli.schemas.configs import SimulationConfig

_CHOSEN = {"environment", "scenario", "initial_state", "population", "cue", "sample"}


class EpisodeStream:
    """The conversations of a run without end; environments that share one take from it by turns."""

    def __init__(self, environments: Sequence[Environment], config: SimulationConfig) -> None:
        self.environments = list(environments)
        self._config = config
        self._episodes = self._from(config)

    def _from(self, config: SimulationConfig) -> Iterator[Episode]:
        return episodes(self.environments, config.model_copy(update={"n": config.n or sys.maxsize}))

    def restart(self, seed: int) -> None:
        """Begin anew with the conversations of a run of this seed."""
        if seed < 0:
            raise InfluenceError(f"A seed is not negative, as {seed} is.")
        self._config = self._config.model_copy(update={"seed": seed})
        self._episodes = self._from(self._config)

    def next(self) -> Episode:
        """Return the next conversation; InfluenceError if ``n`` of them were had."""
        episode = next(self._episodes, None)
        if episode is None:
            raise InfluenceError(f"All {self._config.n} conversations were had.", hint="Leave out n, or give a seed.")
        return episode

    def chosen(self, options: Mapping[str, Any]) -> Episode:
        """Return the conversation that ``options`` name: scenario and initial state, and perhaps who and how."""
        for name in options:
            if name not in _CHOSEN:
                raise UnknownNameError("option of reset", name, _CHOSEN)
        environment = self._environment(options.get("environment"))
        environment.refuse_silent(options.get("cue"))
        wanted = (options.get("scenario"), options.get("initial_state"))
        reference = next((r for r in environment.initial_states() if (r.scenario, r.initial_state) == wanted), None)
        if reference is None:
            scenario = [str(wanted[0])] if wanted[0] else []
            known = [r.initial_state for r in environment.initial_states(scenario)]
            raise UnknownNameError("initial state", str(wanted[1]), known)
        return environment.episode(
            reference,
            sample=int(options.get("sample", 0)),
            population=self._population(environment, reference, options.get("population")),
            cue=options.get("cue") or self._config.cue,
            seed=self._config.seed,
        )

    def choices(self) -> list[dict[str, Any]]:
        """Return the options of every conversation of one pass, in its order."""
        records = (episode.record for episode in episodes(self.environments, self._config))
        return [
            {
                **record.key.model_dump(mode="json", exclude={"iteration"}),
                **record.model_dump(mode="json", include={"population", "cue"}),
            }
            for record in records
        ]

    def _environment(self, name: str | None) -> Environment:
        by_name = {each.name: each for each in self.environments}
        if name is None:
            return self.environments[0]
        if name not in by_name:
            raise UnknownNameError("environment", name, by_name)
        return by_name[name]

    def _population(self, environment: Environment, reference: StateReference, asked: str | None) -> str | None:
        """Return who is asked for, else the kind of user that most of the settings' mix are."""
        mix = environment.mix({asked: 1.0} if asked else self._config.populations)
        return reference.population or (max(mix, key=lambda name: mix[name]) if mix else None)
