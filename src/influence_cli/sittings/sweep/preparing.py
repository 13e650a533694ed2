"""From what was asked to a sweep that can begin: settings resolved, names settled, every end of the space tried.

Invariant: a folder is made only after every name, option and value of the space has been checked, so that a mistake
leaves nothing behind.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from influence_cli.credentials import without_secrets
from influence_cli.errors import InfluenceError
from influence_cli.listening import Listener
from influence_cli.plugins.options import validate_options
from influence_cli.plugins.registry import PluginRegistry
from influence_cli.schemas.configs import SimulationConfig, TrainConfig
from influence_cli.schemas.spaces import parse_dimension
from influence_cli.schemas.sweeps import Objective, Study, SweepConfig, SweepManifest, parse_objective
from influence_cli.seeding import derive_seed
from influence_cli.settings import parse_assignment, resolve_settings
from influence_cli.sittings.provenance import refuse_secrets, versions
from influence_cli.sittings.sweep.trying import settled_base, shared_settings, try_space
from influence_cli.sweeps.directory import SweepDirectory, create_sweep, find_sweep, open_sweep
from influence_cli.sweeps.keys import setting_key
from influence_cli.sweeps.objectives import settle_objective
from influence_cli.sweeps.searchers import grid_points

_FREE_TO_CHANGE = (
    "trials", "parallel", "launcher", "resources", "budget", "max_failed_share", "stop_after_failed",
)  # fmt: skip


@dataclass(frozen=True)
class Asked:
    """What was asked for: settings of the sweep, settings of its trials, and what takes more than a value.

    ``flag_names`` and ``trial_flag_names`` say which flag a setting has where it stood on a command line, for errors to name.
    """

    flags: Mapping[str, Any] = field(default_factory=dict)
    trial_flags: Mapping[str, Any] = field(default_factory=dict)
    search: tuple[str, ...] = ()
    objective: str | None = None
    also: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()
    assignments: tuple[str, ...] = ()
    folders: tuple[Path, ...] = ()
    retry_failed: bool = False
    flag_names: Mapping[str, str] = field(default_factory=dict)
    trial_flag_names: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Prepared:
    """A sweep that can begin or go on; ``directory`` is None for a dry run, ``fresh`` if it has just been made.

    With ``retry_failed`` its failed trials are had once more.
    """

    registry: PluginRegistry
    config: SweepConfig
    keys: Mapping[str, str]
    base: SimulationConfig
    directory: SweepDirectory | None = None
    fresh: bool = False
    retry_failed: bool = False

    def study(self) -> Study:
        """Return what a searcher is told, before there is a folder."""
        config = self.config
        return Study(
            name="", folder="", seed=config.seed, space=config.search, objectives=config.objectives,
            trials=config.trials,
        )  # fmt: skip


def begin(
    registry: PluginRegistry, file: Path | None, asked: Asked, out: Path | None, heard: Listener, *, dry: bool = False
) -> Prepared:
    """Return a new sweep, its folder made unless ``dry``; InfluenceError for whatever the user can mend."""
    config = _resolved(file, asked)
    model: type[SimulationConfig] = TrainConfig if config.command == "train" else SimulationConfig
    base = _base(config, model, asked)
    keys = {name: setting_key(name, model) for name in config.search}
    _refuse_twice(keys)
    if config.seeds > 1 and "seed" in keys.values():
        raise InfluenceError("--seeds repeats every trial with other seeds; seed cannot be searched too.")
    base, environments = settled_base(registry, base, asked.folders, searched=keys.values())
    refuse_secrets(base)
    config = _with_searcher(registry, config, heard)
    refuse_secrets(config)
    notes = try_space(registry, config.search, keys, base, heard)
    _check_objectives(config, base)
    prepared = Prepared(registry, config, keys, base)
    if dry:
        return prepared
    created = datetime.now(UTC).isoformat(timespec="seconds")
    manifest = SweepManifest(
        sweep_id=f"influence-{derive_seed(created, str(Path.cwd()), str(out), *sys.argv):016x}",
        created=created,
        config=config,
        keys=keys,
        environments=environments,
        versions={**versions(), **registry.plugin_versions()},
        argv=tuple(map(without_secrets, sys.argv[1:])),
    )
    for note in notes:
        heard.say(note)
    directory = create_sweep(out, manifest, shared_settings(base))
    return replace(prepared, directory=directory, fresh=True)


def take_up(registry: PluginRegistry, name: str, asked: Asked) -> Prepared:
    """Return the sweep ``name``, to go on with; InfluenceError if what shapes it is to change."""
    if Path(name).is_file():
        raise InfluenceError(f"{name} is a file.", hint="--resume takes the sweep's folder.")
    fixed = (asked.trial_flags.keys() - {"seed"}, asked.files, asked.assignments, asked.search, asked.objective)
    if any((*fixed, asked.also)):
        raise InfluenceError(
            "What a trial is, what is searched and what for cannot change in a sweep.",
            hint="Leave it out, or begin another.",
        )
    directory = open_sweep(find_sweep(name))
    before = directory.config
    config = resolve_settings(
        SweepConfig, base=before.model_dump(mode="json"), flags=asked.flags, flag_names=asked.flag_names
    )
    for key in SweepConfig.model_fields:
        if key not in _FREE_TO_CHANGE and getattr(before, key) != getattr(config, key):
            raise InfluenceError(
                f"{directory.path} was made with another value of {key!r}.", hint="Leave it out to go on."
            )
    refuse_secrets(config)
    model: type[SimulationConfig] = TrainConfig if config.command == "train" else SimulationConfig
    keys = directory.manifest.keys
    base, environments = settled_base(
        registry, resolve_settings(model, base=directory.base), (), searched=keys.values()
    )
    for environment, digest in environments.items():
        if directory.manifest.environments.get(environment) != digest:
            raise InfluenceError(
                f"The environment {environment} has changed since {directory.path} was made.",
                hint="Restore its files, or begin another sweep.",
            )
    return Prepared(registry, config, keys, base, directory, retry_failed=asked.retry_failed)


def _resolved(file: Path | None, asked: Asked) -> SweepConfig:
    flags = dict(asked.flags)
    if asked.search:
        flags["search"] = dict(_search(text) for text in asked.search)
    if asked.objective is not None:
        flags["objectives"] = [asked.objective]
    files = () if file is None else (file,)
    config = resolve_settings(SweepConfig, files=files, flags=flags, flag_names=asked.flag_names)
    if not config.search:
        raise InfluenceError("Nothing is searched.", hint="For instance --search 'lr=log(1e-6,1e-4)'.")
    lead = config.objectives or (Objective(name="heldout_reward" if config.command == "train" else "reward"),)
    settled = tuple(settle_objective(each, config.command) for each in (*lead, *map(_also, asked.also)))
    names = [each.name for each in settled]
    if len(set(names)) < len(names):
        raise InfluenceError("An objective is named twice.")
    return config.model_copy(update={"objectives": settled})


def _search(text: str) -> tuple[str, Any]:
    name, value = parse_assignment(text, flag="--search")
    try:
        parse_dimension(value)
    except ValueError as error:
        raise InfluenceError(f"--search {name}: {error}.") from None
    return name, value


def _also(text: str) -> Objective:
    try:
        return Objective.model_validate(parse_objective(text))
    except ValueError as error:
        raise InfluenceError(f"--also: {error}.") from None


def _base(config: SweepConfig, model: type[SimulationConfig], asked: Asked) -> SimulationConfig:
    """Return the settings of every trial: the sweep file's, then files, flags, ``--set``."""
    shown = {key: f"base.{key}" for key in config.base}
    own = resolve_settings(model, flags=dict(config.base), flag_names=shown)
    base = resolve_settings(
        model,
        base=own.model_dump(mode="json", exclude_unset=True),
        files=asked.files,
        flags=asked.trial_flags,
        assignments=asked.assignments,
        flag_names=asked.trial_flag_names,
    )
    if base.budget.cost is not None or base.budget.tokens is not None:
        raise InfluenceError("Trials share the sweep's budget.", hint="Use budget of the sweep, or --max-tokens.")
    return base


def _refuse_twice(keys: Mapping[str, str]) -> None:
    for name, key in keys.items():
        other = next((each for each in keys if each != name and keys[each] == key), None)
        if other is not None:
            raise InfluenceError(f"{name} and {other} are one setting, {key}.")


def _with_searcher(registry: PluginRegistry, config: SweepConfig, heard: Listener) -> SweepConfig:
    """Return ``config`` with its searcher and launcher named and their options checked."""
    searcher = config.searcher
    if searcher.name is None:
        searcher = searcher.model_copy(update={"name": _default_searcher(registry, config, heard)})
    component = registry.component("searcher", str(searcher.name))
    validate_options(component, searcher.options, flag="--searcher-option ")
    if config.trials is None and searcher.name != "grid":
        raise InfluenceError("How many trials?", hint="Add --trials 24.")
    launcher = registry.component("launcher", config.launcher.name)
    validate_options(launcher, config.launcher.options, flag="--launcher-option ")
    return config.model_copy(update={"searcher": searcher})


def _default_searcher(registry: PluginRegistry, config: SweepConfig, heard: Listener) -> str:
    study = Study(name="", folder="", seed=0, space=config.search, objectives=config.objectives, trials=config.trials)
    if config.searcher.options:
        return "tpe"
    if config.trials is None and grid_points(study) is not None:
        return "grid"
    tpe = next((offer for offer in registry.offers("searcher") if offer.component.name == "tpe"), None)
    if tpe is not None and tpe.state == "ok":
        return "tpe"
    mend = f" ({tpe.mend})" if tpe is not None and tpe.mend else ""
    heard.say(f"Searching at random: Optuna is not there to learn from trials{mend}.")
    return "random"


def _check_objectives(config: SweepConfig, base: SimulationConfig) -> None:
    if any(each.name == "harm" for each in config.objectives) and not base.veto:
        raise InfluenceError("harm is what the veto model says, and veto is off.", hint="Add --set veto=true.")
