"""Whether a sweep's trials could begin: every end of its space is tried on the settings, and one trial in whole."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from influence_cli.errors import InfluenceError
from influence_cli.listening import Listener
from influence_cli.plugins.options import validate_options
from influence_cli.plugins.registry import PluginRegistry
from influence_cli.resolution import role_models
from influence_cli.schemas.configs import SimulationConfig, TrainConfig
from influence_cli.schemas.spaces import Dimension, ends
from influence_cli.schemas.sweeps import Parameters
from influence_cli.settings import resolve_settings
from influence_cli.simulation.estimate import estimate
from influence_cli.sittings.simulate import settled
from influence_cli.sittings.sources import Sources
from influence_cli.sittings.train import begin as begin_training
from influence_cli.sittings.train import estimated as estimated_training
from influence_cli.sweeps.commands import assignments

_ENVIRONMENTS = "environments"


class Estimated(Protocol):
    """What a run takes at most."""

    @property
    def conversations(self) -> int:
        """How many it has."""
        ...

    @property
    def calls(self) -> int:
        """Calls of models."""
        ...

    @property
    def tokens(self) -> int:
        """Of prompts and replies."""
        ...

    @property
    def cost(self) -> float | None:
        """US dollars; None where a price is not known."""
        ...

    @property
    def unpriced(self) -> tuple[str, ...]:
        """Models that may cost money and have no price."""
        ...


def shared_settings(base: SimulationConfig) -> dict[str, Any]:
    """Return the settings of every trial; without the level of selection where none was named: each trial settles its own."""
    document = base.model_dump(mode="json")
    if isinstance(base, TrainConfig) and "level" not in base.selection.model_fields_set:
        del document["selection"]["level"]
    return document


def settled_base(
    registry: PluginRegistry, base: SimulationConfig, folders: Sequence[Path], *, searched: Iterable[str]
) -> tuple[SimulationConfig, dict[str, str]]:
    """Return ``base`` with environments by names that hold anywhere, and the digest of each by name.

    InfluenceError if there is none, or one is wrong.
    """
    if _ENVIRONMENTS in searched:
        return base, {}
    if not base.environments:
        raise InfluenceError("No environment is named.", hint="Add --env therapy; `influence env list` shows all.")
    config, environments = settled(registry, base, folders)
    return config, {environment.name: environment.digest for environment in environments}


def try_space(
    registry: PluginRegistry,
    space: Mapping[str, Dimension],
    keys: Mapping[str, str],
    base: SimulationConfig,
    heard: Listener,
) -> tuple[str, ...]:
    """Return what the first trial settles that nobody asked for.

    InfluenceError, naming what is searched, if any end of it could not be set, or if the first trial could not begin.
    """
    first: Parameters = {name: ends(dimension)[0] for name, dimension in space.items()}
    for name, dimension in space.items():
        for value in ends(dimension):
            config = resolve_settings(
                type(base),
                base=shared_settings(base),
                flags={keys[name]: value},
                flag_names={keys[name]: f"--search {name}"},
            )
            if isinstance(config, TrainConfig):
                _check_algorithm(registry, config)
    return estimated(registry, base, keys, first, heard)[1]


def _check_algorithm(registry: PluginRegistry, config: TrainConfig) -> None:
    component = registry.component("algorithm", config.algorithm.name)
    validate_options(component, config.algorithm.options, flag="algorithm.options.")


def estimated(
    registry: PluginRegistry,
    base: SimulationConfig,
    keys: Mapping[str, str],
    parameters: Parameters,
    heard: Listener,
) -> tuple[Estimated, tuple[str, ...]]:
    """Return what one run of a trial takes at most, and what it settles unasked; InfluenceError if it could not begin."""
    flags = shared_settings(base)
    given = assignments(parameters, keys)
    if isinstance(base, TrainConfig):
        plan = begin_training(registry, Sources(flags, assignments=given), None, heard, dry=True)
        return estimated_training(plan), plan.notes
    config, environments = settled(registry, resolve_settings(type(base), base=flags, assignments=given), ())
    return estimate(environments, config, role_models(registry, config, load=False)), ()
