"""What may be otherwise when a run is taken up again: servers, limits and a larger number, nothing that shapes it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from influence_cli.environments.environment import Environment
from influence_cli.environments.sampling import episodes
from influence_cli.errors import InfluenceError
from influence_cli.schemas.configs import SimulationConfig
from influence_cli.simulation.runner import start_tally
from influence_cli.store.conditions import NO_CONDITIONS, changed_condition
from influence_cli.store.run_directory import RunDirectory

_LEAVE_OUT = "Leave --n out to go on, or start a new run."


def refuse_changes(
    before: SimulationConfig,
    after: SimulationConfig,
    path: Path,
    flag_names: Mapping[str, str],
    free: Sequence[str] = NO_CONDITIONS,
) -> None:
    """Raise InfluenceError if a setting that shapes conversations differs; servers and limits may change."""
    name = changed_condition(before, after, free)
    if name is not None:
        old, new = getattr(before, name), getattr(after, name)
        raise InfluenceError(
            f"{path} was made with another value of {flag_names.get(name, name)!r}: {_told(old)}, not {_told(new)}.",
            hint="Leave it out to go on, or start a new run.",
        )


def _told(value: Any) -> str:
    """Return a setting as a person would write it: of a group of settings, those that were set and may not change."""
    if isinstance(value, BaseModel):
        return json.dumps(value.model_dump(mode="json", exclude_defaults=True, exclude={"options"}))
    if isinstance(value, dict):
        return f"{{{', '.join(f'{name}: {_told(entry)}' for name, entry in value.items())}}}"
    return repr(value)


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
            hint=_LEAVE_OUT,
        )
    if len(environments) > 1 and (before.n is None) != (after.n is None):  # one may end before another, or begin anew
        stay = {episode.record.key for episode in episodes(environments, after)}
        lost = sum(episode.record.key not in stay for episode in episodes(environments, before))
        if lost:
            raise InfluenceError(
                f"{lost:,} of the {had:,} conversations of {path} are none of the {wanted:,} that --n takes from its "
                "environments by turns.",
                hint=_LEAVE_OUT,
            )
