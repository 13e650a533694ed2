"""Under which conditions a run is made: versions, git state, command line.

Invariant: nothing here reads or repeats the value of a variable or option that may hold a key.
"""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Literal

from influence_cli import __version__
from influence_cli.credentials import holds_secret, without_secrets
from influence_cli.environments.environment import Environment
from influence_cli.errors import InfluenceError
from influence_cli.plugins.registry import PluginRegistry
from influence_cli.schemas.configs import RunManifest, SimulationConfig
from influence_cli.schemas.messages import Role
from influence_cli.schemas.sweeps import SweepConfig
from influence_cli.simulation.models import RoleModel

_LIBRARIES = ("pydantic", "openai", "aiohttp", "torch", "transformers", "peft", "vllm")
_GIT_SECONDS = 2.0


def manifest(
    registry: PluginRegistry,
    command: Literal["simulate", "train", "score", "import"],
    config: SimulationConfig,
    environments: Sequence[Environment],
    models: Mapping[Role, RoleModel],
) -> RunManifest:
    """Return what ``run.yaml`` says of a run that is about to begin; its ``run_id`` is given by the store."""
    return RunManifest(
        run_id="",
        command=command,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        config=config,
        models={role: str(model.name) for role, model in models.items()},
        environments={environment.name: environment.digest for environment in environments},
        versions={**versions(), **registry.plugin_versions()},
        git=git_state(Path.cwd()),
        argv=tuple(map(without_secrets, sys.argv[1:])),
    )


def refuse_secrets(config: SimulationConfig | SweepConfig) -> None:
    """Raise InfluenceError if ``config``, which a run keeps, seems to hold a key or a password."""
    if holds_secret(config.model_dump(mode="json")):
        raise InfluenceError(
            "A setting seems to hold a key or a password, and a run keeps its settings.",
            hint="Put it in an environment variable.",
        )


def versions() -> dict[str, str]:
    """Return the versions of Python, this program and the libraries that shape its answers, if installed."""
    found = {"python": platform.python_version(), "influence": __version__}
    for name in _LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def git_state(folder: Path) -> dict[str, str | bool]:
    """Return commit and whether the work tree was changed, of the checkout around ``folder``; empty without one."""
    commit = _git(folder, "rev-parse", "HEAD")
    if not commit:
        return {}
    return {"commit": commit, "changed": bool(_git(folder, "status", "--porcelain", "--untracked-files=no"))}


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_GIT_SECONDS, check=True)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
