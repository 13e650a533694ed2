"""Runs begun and runs taken up: what simulate and train have in common.

Invariant: a run directory is made only after every name, option and model has been resolved, so that a mistake leaves
nothing behind.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, Protocol, TypeVar

from influence_cli.environments.environment import Environment
from influence_cli.plugins.registry import PluginRegistry
from influence_cli.schemas.configs import SimulationConfig, TrainConfig
from influence_cli.schemas.messages import Role
from influence_cli.simulation.models import RoleModel
from influence_cli.sittings.changes import refuse_changed_environments
from influence_cli.sittings.provenance import manifest
from influence_cli.sittings.sources import Sources, of_another_command
from influence_cli.store.conditions import NO_CONDITIONS
from influence_cli.store.run_directory import RunDirectory, create_run, find_run, open_run
from influence_cli.store.shards import Shard


class Ready(Protocol):
    """What a run needs, resolved; ``directory`` is None until there is one, or for a dry run."""

    directory: RunDirectory | None
    resumed: bool

    @property
    def config(self) -> SimulationConfig:
        """Every setting."""
        ...

    @property
    def environments(self) -> Sequence[Environment]:
        """All that it names."""
        ...

    @property
    def models(self) -> Mapping[Role, RoleModel]:
        """Who speaks; loaded or not."""
        ...


C = TypeVar("C", bound=SimulationConfig)
R = TypeVar("R", bound=Ready)


def begin_run(registry: PluginRegistry, command: Literal["simulate", "train"], ready: R, out: Path | None) -> R:
    """Return ``ready`` with the directory of a new run, which is made."""
    ready.directory = create_run(out, manifest(registry, command, ready.config, ready.environments, ready.models))
    return ready


def take_up_run(
    registry: PluginRegistry,
    name: str,
    sources: Sources,
    model: type[C],
    resolve: Callable[[C], R],
    *,
    shard: Shard | None = None,
    free: Sequence[str] = NO_CONDITIONS,
) -> R:
    """Return what ``resolve`` makes of the settings that the run ``name``, or a ``shard`` of it, goes on with.

    InfluenceError if another command made it, or if it was made under other conditions, those that are ``free`` aside.
    """
    directory = open_run(find_run(name)).of_shard(shard)
    if isinstance(directory.manifest.config, TrainConfig) != issubclass(model, TrainConfig):
        raise of_another_command(directory)
    ready = resolve(sources.over(registry, directory, model, free))
    refuse_changed_environments(directory, ready.environments)
    ready.directory, ready.resumed = directory, True
    return ready
