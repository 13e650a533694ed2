"""``influence train --from RUN``: the run, and what is known of it here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from influence_cli.environments.environment import Environment
from influence_cli.errors import InfluenceError, UnknownNameError
from influence_cli.plugins.registry import PluginRegistry
from influence_cli.resolution import find_environments
from influence_cli.schemas.configs import TrainConfig
from influence_cli.sittings.opening import run_to_read
from influence_cli.store.reader import RunReader
from influence_cli.store.run_directory import open_run
from influence_cli.training.rewards import candidates
from influence_cli.training.source import Source, without_heldout


def settled_source(config: TrainConfig, warn: Callable[[str], None]) -> TrainConfig:
    """Return the settings with the source, if one is named, by a lasting path; InfluenceError if there is no such run."""
    if config.source.run is None:
        if config.source.iteration is not None:
            raise InfluenceError("An iteration is named, and no run that it is of.", hint="Add --from RUN.")
        return config
    path = str(run_to_read(config.source.run, warn).path.resolve())
    return config.model_copy(update={"source": config.source.model_copy(update={"run": path})})


def open_source(registry: PluginRegistry, config: TrainConfig, warn: Callable[[str], None]) -> Source:
    """Return the conversations that ``config.source`` names; InfluenceError if the run is not there."""
    directory = open_run(Path(config.source.run or ""))
    known: dict[str, Environment] = {}
    for name in directory.manifest.config.environments:
        try:
            found = find_environments(registry, [name])
        except UnknownNameError:
            continue
        except InfluenceError as error:
            warn(f"The environment {name} of {directory.path} cannot be read: {error}")
            continue
        digests = directory.manifest.environments
        known |= {each.name: each for each in found if digests.get(each.name) == each.digest}
    return Source(directory, config.source.iteration, known)


def check_source(
    registry: PluginRegistry, config: TrainConfig, environments: Sequence[Environment], warn: Callable[[str], None]
) -> None:
    """Raise InfluenceError if nothing can be learnt from the source; say what of it is left out, and what is not known."""
    if config.source.run is None:
        return
    source = open_source(registry, config, warn)
    with RunReader(source.directory) as run:
        found = candidates(run, source.iteration, "train", config.selection)
    where = f"{source.directory.path}" + ("" if source.iteration is None else f", iteration {source.iteration}")
    rated = len(found.rated)
    found, heldout = without_heldout(found, environments)
    if not found.rated:
        why = f"none of {found.unrated:,} has a reward" if found.unrated else "it has none of the split train"
        why = f"all {rated:,} are of people who are held out" if heldout else why
        raise InfluenceError(
            f"{where} has no finished conversation to learn from: {why}.",
            hint="See `influence runs show`; a score that is the reward is given by `influence score`.",
        )
    if heldout:
        warn(f"{heldout:,} conversations with people who are held out here are not learnt from.")
    if unknown := sorted({each.environment for each in found.rated} - set(source.environments)):
        warn(
            f"What the agent was told in {', '.join(unknown)} is not known here: it learns from the conversations alone."
        )
