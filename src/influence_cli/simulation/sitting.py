"""One sitting of a simulation: everything that it needs, resolved, whoever has the conversations."""

from __future__ import annotations

from dataclasses import dataclass

from influence_cli.environments.environment import Environment
from influence_cli.schemas.configs import SimulationConfig
from influence_cli.schemas.messages import Role
from influence_cli.schemas.records import RunState
from influence_cli.simulation.models import RoleModel
from influence_cli.simulation.tally import Tally
from influence_cli.store.run_directory import RunDirectory
from influence_cli.store.shards import Shard


@dataclass
class Sitting:
    """Everything that a simulation needs, resolved; ``directory`` is None for a dry run."""

    config: SimulationConfig
    environments: list[Environment]
    models: dict[Role, RoleModel]
    directory: RunDirectory | None
    resumed: bool = False

    @property
    def shard(self) -> Shard | None:
        """Which part of the run this process makes; None: all of it."""
        return self.directory.shard if self.directory else None


def state_of(tally: Tally) -> RunState:
    """Return how the run ended: one that was told to stop but had nothing left to do is done."""
    if tally.stop == "alike":
        return "failed"
    return "done" if tally.done >= tally.total else "stopped"
