"""Under which conditions a run's conversations are had, and whether those of two runs are the same.

Concept: whatever shapes a conversation is a condition: settings, models, the files of environments. Servers, limits and a
larger number of conversations are none.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from influence_cli.documents import read_manifest
from influence_cli.errors import InfluenceError
from influence_cli.schemas.configs import RoleConfig, RunManifest, SimulationConfig, TrainConfig
from influence_cli.store.connection import connect, explained
from influence_cli.store.run_directory import MANIFEST, RunDirectory
from influence_cli.store.schema import SCHEMA_VERSION, check_version

NO_CONDITIONS = ("n", "concurrency", "budget", "prices", "max_failed_share", "stop_after_alike", "cache")
"""Settings that shape no conversation."""
_HINT = "Merge only shards of one run; `influence compare` sets runs side by side."


def changed_condition(
    before: SimulationConfig, after: SimulationConfig, free: Sequence[str] = NO_CONDITIONS
) -> str | None:
    """Return the first setting, but for those in ``free``, that shapes conversations and differs; None if none does."""
    for name in type(before).model_fields:
        if name not in free and _without_options(getattr(before, name)) != _without_options(getattr(after, name, None)):
            return name
    return None


def _without_options(value: Any) -> Any:
    """Return a setting without the options of backends in it."""
    if isinstance(value, RoleConfig):
        return value.model_copy(update={"options": {}})
    if isinstance(value, dict):
        rest = {name: _without_options(entry) for name, entry in value.items()}
        return {name: entry for name, entry in rest.items() if entry != RoleConfig()}
    return value


def refuse_other_run(directory: RunDirectory, source: Path) -> None:
    """Raise InfluenceError if the database ``source`` is not of the run, nor of one made under the same conditions.

    What lies in the run's own directory is its own. Elsewhere the manifest beside the database tells; without one, the
    models that were called.
    """
    if source.parent.samefile(directory.path):
        return
    beside = source.parent / MANIFEST
    why = _otherwise(directory.manifest, beside) if beside.is_file() else None
    if why is None:
        why = _other_model(directory.manifest, source)
    if why is not None:
        raise InfluenceError(f"{source} is of another run than {directory.path}: {why}.", hint=_HINT)


def _otherwise(here: RunManifest, beside: Path) -> str | None:
    """Return under which other condition the run of the manifest ``beside`` was made; None: under the same."""
    there = read_manifest(beside, RunManifest, SCHEMA_VERSION)
    for name in sorted(here.environments.keys() | there.environments.keys()):
        if here.environments.get(name) != there.environments.get(name):
            return f"the environment {name} is not the same"
    # By their digests, not their paths: a shard that was made elsewhere has its environments elsewhere.
    changed = changed_condition(here.config, there.config, (*NO_CONDITIONS, "environments"))
    if changed is not None:
        return f"it was made with another value of {changed!r}"
    return None


def _other_model(here: RunManifest, source: Path) -> str | None:
    """Return which model spoke in ``source`` that does not in the run; None: none did."""
    with closing(connect(source, write=False)) as connection, explained(source):
        check_version(connection, source)
        called = connection.execute("SELECT DISTINCT role, model FROM call WHERE role NOT IN ('judge', 'probe')")
        for role, model in called.fetchall():
            own = here.models.get(role)
            learns = role == "agent" and isinstance(here.config, TrainConfig)
            if own is not None and model != own and not learns:
                return f"{model} speaks there for {role}, not {own}"
    return None
