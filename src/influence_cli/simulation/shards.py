"""A run in shards, seen from outside: how far all of them are while they work, and what came of them afterwards.

While shards work, their own counters are added up, which a killed one may have told too late; what is said in the end is
counted in the merged database.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from influence_cli.environments.environment import Environment
from influence_cli.environments.sampling import episodes
from influence_cli.schemas.configs import Budget, SimulationConfig
from influence_cli.simulation.tally import RoleTally, Tally
from influence_cli.store.beats import read_beat
from influence_cli.store.merge import take_over
from influence_cli.store.reader import RunReader
from influence_cli.store.run_directory import RunDirectory
from influence_cli.store.shards import Shard

_ADDED = ("complete", "turns", "ratings", "rating_sum", "cost", "cached_answer_tokens", "unpriced_calls")
"""Counters that add up over the sittings of a shard."""
_ROLE = tuple(vars(RoleTally()))


def shard_config(config: SimulationConfig, shard: Shard) -> SimulationConfig:
    """Return the settings of one shard: its part of the budget and of the conversations in progress."""
    budget = config.budget
    part = Budget(
        cost=None if budget.cost is None else budget.cost / shard.of,
        tokens=None if budget.tokens is None else shard.part(budget.tokens),
    )
    return config.model_copy(update={"budget": part, "concurrency": shard.part(config.concurrency)})


def hand_over(directory: RunDirectory, environments: list[Environment], config: SimulationConfig) -> int:
    """Let the shard ``directory`` is of hold what the run has of its conversations; return how many came."""
    shard = directory.shard
    assert shard is not None
    run = directory.of_shard(None)
    if not run.database.is_file():
        return 0
    with RunReader(run) as reader:
        names = "iteration, environment, scenario, initial_state, sample"
        held = {tuple(row) for row in reader.rows(f"SELECT {names} FROM episode")}  # noqa: S608
    if not held:
        return 0
    keys = (episode.record.key for episode in shard.share(episodes(environments, config)))
    return take_over(
        directory,
        (k for k in keys if (k.iteration, k.environment, k.scenario, k.initial_state, k.sample) in held),
    )


def counters(tally: Tally) -> dict[str, Any]:
    """Return what a shard tells while it works."""
    return {
        **{name: getattr(tally, name) for name in (*_ADDED, "active", "failed", "stop")},
        "unusable": tally.unusable,
        "roles": {name: vars(role) for name, role in tally.roles.items()},
    }


class ShardWatch:
    """Reads what shards tell, and adds it up in a tally; ``files`` holds by name where each tells it."""

    def __init__(self, files: Mapping[str, Path], tally: Tally) -> None:
        self._files = files
        self._tally = tally
        self._over: dict[str, list[dict[str, Any]]] = {name: [] for name in files}
        for file in files.values():
            file.unlink(missing_ok=True)

    def sign(self, name: str) -> object:
        """Return what changes with every call that a shard ends."""
        told = read_beat(self._files[name])
        return told.get("process"), sum(role["calls"] for role in told.get("roles", {}).values())

    def ended(self, name: str) -> None:
        """Keep what a sitting of the shard told last: the next one counts from nothing."""
        self._over[name].append(read_beat(self._files[name]))
        self._files[name].unlink(missing_ok=True)

    def refresh(self) -> None:
        """Bring the tally up to date."""
        tally, told = self._tally, []
        tally.active = tally.failed = 0
        for name, over in self._over.items():
            now = read_beat(self._files[name])
            tally.active += now.get("active", 0)
            tally.failed += (now or (over[-1] if over else now)).get("failed", 0)
            told += [*over, now]
        for name in _ADDED:
            setattr(tally, name, sum(counted.get(name, 0) for counted in told))
        tally.unusable = Counter()
        roles: dict[Any, RoleTally] = {}
        for counted in told:
            tally.unusable.update(counted.get("unusable", {}))
            for role, figures in counted.get("roles", {}).items():
                _add(roles.setdefault(role, RoleTally()), figures)
        tally.roles = roles


def _add(role: RoleTally, figures: Mapping[str, Any]) -> None:
    for name in _ROLE:
        setattr(role, name, getattr(role, name) + figures[name])
