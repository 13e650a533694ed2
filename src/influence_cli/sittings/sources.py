"""Where a command's settings come from: those of a new run, and those that a run goes on with.

Invariant: settings that hold a key or a password are refused before anything is made or changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from influence_cli.errors import InfluenceError
from influence_cli.plugins.registry import PluginRegistry
from influence_cli.resolution import find_environments, lasting_names
from influence_cli.schemas.configs import SimulationConfig
from influence_cli.settings import resolve_settings
from influence_cli.sittings.changes import refuse_changes
from influence_cli.sittings.provenance import refuse_secrets
from influence_cli.store.conditions import NO_CONDITIONS
from influence_cli.store.run_directory import RunDirectory

C = TypeVar("C", bound=SimulationConfig)


@dataclass(frozen=True)
class Sources:
    """What was asked for: settings by their dotted keys, in files and by ``--set``, and folders to find environments in.

    ``flag_names`` say which flag a setting has where ``flags`` stood on a command line, for errors to name.
    """

    flags: Mapping[str, Any] = field(default_factory=dict)
    files: Sequence[Path] = ()
    assignments: Sequence[str] = ()
    folders: Sequence[Path] = ()
    flag_names: Mapping[str, str] = field(default_factory=dict)

    def new(self, model: type[C]) -> C:
        """Return the settings of a new run, which name an environment; InfluenceError for what is wrong."""
        config = self._resolved(model)
        if not config.environments:
            raise InfluenceError("No environment is named.", hint="Add --env therapy; `influence env list` shows all.")
        refuse_secrets(config)
        return config

    def over(
        self,
        registry: PluginRegistry,
        directory: RunDirectory,
        model: type[C],
        free: Sequence[str] = NO_CONDITIONS,
    ) -> C:
        """Return the settings that a run goes on with; InfluenceError if one that is not ``free`` to change would.

        An environment may be named as when the run was begun, by another path to the same folder too.
        """
        before = directory.manifest.config
        config = self._resolved(model, before.model_dump(mode="json"))
        refuse_secrets(config)
        if config.environments != before.environments:
            names = tuple(dict.fromkeys(config.environments))
            lasting = lasting_names(names, find_environments(registry, names, self.folders), self.folders)
            config = config.model_copy(update={"environments": lasting})
        refuse_changes(before, config, directory.path, self.flag_names, free)
        return config

    def _resolved(self, model: type[C], base: Mapping[str, Any] | None = None) -> C:
        return resolve_settings(
            model,
            base=base,
            files=self.files,
            assignments=self.assignments,
            flags=self.flags,
            flag_names=self.flag_names,
        )


def of_another_command(directory: RunDirectory) -> InfluenceError:
    """Return the error of a run that another command is to go on with."""
    command = directory.manifest.command
    return InfluenceError(
        f"{directory.path} was made by `influence {command}`.",
        hint=f"influence {command} --resume {directory.path}",
    )
