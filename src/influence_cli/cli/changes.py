"""What may be otherwise when a run is taken up again: servers, limits and a larger number, nothing that shapes it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from influence_cli.cli.simulate import FLAGS
from influence_cli.environments.environment import Environment
from influence_cli.errors import InfluenceError
from influence_cli.schemas.configs import RoleConfig, SimulationConfig
from influence_cli.simulation.runner import start_tally
from influence_cli.store.run_directory import RunDirectory

FREE_TO_CHANGE = ("n", "concurrency", "budget", "prices", "max_failed_share", "stop_after_alike", "cache")


def refuse_changes(
    before: SimulationConfig, after: SimulationConfig, path: Path, free: Sequence[str] = FREE_TO_CHANGE
) -> None:
    """Raise InfluenceError if a setting that shapes conversations differs; servers and limits may change."""
    for name in type(before).model_fields:
        old, new = getattr(before, name), getattr(after, name)
        if name in free or _without_options(old) == _without_options(new):
            continue
        raise InfluenceError(
            f"{path} was made with another value of {FLAGS.get(name, name)!r}: {old!r}, not {new!r}.",
            hint="Leave it out to go on, or start a new run.",
        )


def _without_options(value: Any) -> Any:
    """Return a setting without the options of backends in it."""
    if isinstance(value, RoleConfig):
        return value.model_copy(update={"options": {}})
    if isinstance(value, dict):
        rest = {name: _without_options(entry) for name, entry in value.items()}
        return {name: entry for name, entry in rest.items() if entry != RoleConfig()}
    return value


def refuse_changed_environments(directory: RunDirectory, environments: Sequence[Environment]) -> None:
    """Raise InfluenceError if an environment is not the one that the run was made with."""
    for environment in environments:
        digest = directory.manifest.environments.get(environment.name)
        if digest != environment.digest:
            raise InfluenceError(
                f"The environment {environment.name} has changed since {directory.path} was made.",
                hint="Restore its files, or start a new run.",
            )


def refuse_fewer(
    before: SimulationConfig, after: SimulationConfig, environments: Sequence[Environment], path: Path
) -> None:
    """Raise InfluenceError if the run would shrink: what it holds would no longer be a part of it."""
    had, wanted = start_tally(environments, before).total, start_tally(environments, after).total
    if wanted < had:
        raise InfluenceError(
            f"{path} is a run of {had:,} conversations; it cannot become one of {wanted:,}.",
            hint="Leave --n out to go on, or start a new run.",
        )
