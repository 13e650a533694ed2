"""The cells of the transfer matrix: from training runs to conversations, and from these to figures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from influence_cli import __version__
from influence_cli.backends.names import parse_model_name
from influence_cli.benchmarking.bench import save
from influence_cli.benchmarking.transfer import UNTRAINED, Agent, Cell, matrix
from influence_cli.errors import EXIT_DONE, InfluenceError
from influence_cli.listening import Listener
from influence_cli.plugins.registry import PluginRegistry
from influence_cli.report.catalogues import catalogue_of
from influence_cli.resolution import agent_name, find_environments, role_models
from influence_cli.schemas.configs import SimulationConfig, TrainConfig
from influence_cli.simulation.estimate import estimate
from influence_cli.simulation.sitting import Sitting
from influence_cli.sittings.opening import run_to_read, runs_to_read
from influence_cli.sittings.simulate import begin, settled, take_up, talk
from influence_cli.sittings.sources import Sources
from influence_cli.store.queries import is_finished
from influence_cli.store.reader import RunReader
from influence_cli.store.run_directory import MANIFEST, RunDirectory

_KEPT = ("roles", "default", "veto", "judges", "prices", "concurrency", "questions", "max_failed_share")
"""What all cells take from the first run: who speaks as users and judges, and how."""


@dataclass(frozen=True)
class Wanted:
    """What was asked for on the command line."""

    environments: tuple[str, ...]
    n: int | None
    samples: int
    turns: int | None
    seed: int
    out: Path


@dataclass(frozen=True)
class Planned:
    """The agents, the environments, and the settings that all cells share."""

    agents: list[Agent]
    environments: list[str]
    settings: dict[str, Any]
    wanted: Wanted

    def path(self, agent: Agent, environment: str) -> Path:
        """Return where the run of a cell lies."""
        return self.wanted.out / "cells" / f"{agent.label}--{Path(environment).name}"

    def flags(self, agent: Agent, environment: str) -> dict[str, Any]:
        """Return the settings of a cell's run."""
        return {**self.settings, "environments": [environment], "roles.agent.model": agent.model}


def plan(registry: PluginRegistry, names: Sequence[str], wanted: Wanted, warn: Callable[[str], None]) -> Planned:
    """Return what is to be measured; InfluenceError for a run that trained nothing, or an environment that is not here."""
    directories = runs_to_read(names, warn)
    trained = [_trained(directory) for directory in directories]
    bases = {agent.base: Agent(UNTRAINED, agent.base, agent.base) for agent in trained}
    if len(bases) > 1:
        bases = {base: Agent(f"{UNTRAINED}-{place}", base, base) for place, base in enumerate(bases, start=1)}
    labels = [agent.label for agent in trained]
    if len(set(labels)) < len(labels):
        raise InfluenceError("Two of the runs have the same name.", hint="Rename the directory of one.")
    own = (name for directory in directories for name in directory.manifest.config.environments)
    asked = wanted.environments or tuple(own)
    environments = [
        str(found.folder) if "/" in name and found.folder else found.name
        for name, found in ((name, find_environments(registry, [name])[0]) for name in dict.fromkeys(asked))
    ]
    return Planned(
        [*bases.values(), *trained], list(dict.fromkeys(environments)), _settings(directories, wanted, warn), wanted
    )


def _trained(directory: RunDirectory) -> Agent:
    """Return the agent that a training run came to at its last iteration: fixed before anything is looked at."""
    config = directory.manifest.config
    if not isinstance(config, TrainConfig):
        raise InfluenceError(f"{directory.path} trained no agent.", hint="Name runs of `influence train`.")
    with RunReader(directory) as run:
        rows = run.rows("SELECT number, adapter FROM iteration ORDER BY number")
    base = str(agent_name(config))
    if not rows or rows[-1]["adapter"] == rows[0]["adapter"]:
        raise InfluenceError(
            f"{directory.path} has no trained agent yet.", hint="Go on with it: influence train --resume."
        )
    name = parse_model_name(rows[-1]["adapter"])
    moved = directory.path.resolve() / "adapters" / str(rows[-1]["number"])
    if name.adapter is not None and not Path(name.adapter).exists() and moved.is_dir():
        name = parse_model_name(f"{name.base}@{moved}")  # the run lies elsewhere than when it was made
    return Agent(directory.path.resolve().name, str(name), base, tuple(directory.manifest.environments))


def _settings(directories: Sequence[RunDirectory], wanted: Wanted, warn: Callable[[str], None]) -> dict[str, Any]:
    first, *others = (directory.manifest for directory in directories)
    for other in others:
        differing = [r for r in first.models if r != "agent" and first.models[r] != other.models.get(r)]
        if differing:
            warn(f"{other.run_id} had another {', '.join(differing)}: all cells have those of {first.run_id}.")
    kept = first.config.model_dump(mode="json", include=set(_KEPT))
    settings = {
        "split": "heldout",
        "samples": wanted.samples,
        "n": wanted.n,
        "turns": wanted.turns,
        "seed": wanted.seed,
    }
    return {**kept, **{key: value for key, value in settings.items() if value is not None}}


def _cells(planned: Planned) -> list[tuple[Agent, str]]:
    return [(agent, environment) for environment in planned.environments for agent in planned.agents]


def estimated(registry: PluginRegistry, planned: Planned) -> dict[str, Any]:
    """Return what the cells take at most: the object ``influence.bench.transfer.dry-run/1``; no model is loaded."""
    from influence_cli.settings import resolve_settings

    rows: list[dict[str, Any]] = []
    for agent, environment in _cells(planned):
        config = resolve_settings(SimulationConfig, flags=planned.flags(agent, environment))
        config, environments = settled(registry, config, ())
        found = estimate(environments, config, role_models(registry, config, load=False))
        figures = {"conversations": found.conversations, "calls": found.calls, "tokens": found.tokens}
        rows.append({"agent": agent.label, "model": agent.model, "environment": environment, **figures})
    totals = {name: sum(row[name] for row in rows) for name in ("conversations", "calls", "tokens")}
    return {"schema": "influence.bench.transfer.dry-run/1", "cells": rows, **totals}


def simulate_cells(registry: PluginRegistry, planned: Planned, heard: Listener) -> int:
    """Have the conversations of every cell that is not finished; return the first exit code that is not 0."""
    for agent, environment in _cells(planned):
        path, flags = planned.path(agent, environment), planned.flags(agent, environment)
        heard.say(f"{agent.label} in {Path(environment).name} ...")
        if not (path / MANIFEST).is_file():
            sitting = begin(registry, Sources(flags), path, heard)
        elif _is_finished(take_up(registry, str(path), Sources(flags), heard, load=False)):
            continue
        else:
            sitting = take_up(registry, str(path), Sources(flags), heard)
        code = talk(sitting, heard).exit_code
        if code != EXIT_DONE:
            return code
    return EXIT_DONE


def _is_finished(cell: Sitting) -> bool:
    """Return whether nothing is left to be had of a cell that was begun, nor to be tried again."""
    assert cell.directory is not None
    if not cell.directory.database.is_file() or cell.config.n != cell.directory.manifest.config.n:
        return False
    with RunReader(cell.directory) as run:
        return is_finished(run)


def results(
    registry: PluginRegistry, planned: Planned, measures: Sequence[str], warn: Callable[[str], None]
) -> dict[str, Any]:
    """Return the matrix of all cells that have conversations, and keep it in the folder."""
    found = [
        Cell(agent, Path(environment).name, run_to_read(str(planned.path(agent, environment)), warn))
        for agent, environment in _cells(planned)
        if (planned.path(agent, environment) / "run.db").is_file()
    ]
    catalogue = catalogue_of(registry, [cell.directory for cell in found], told=warn)
    document = {
        "schema": "influence.bench.transfer/1",
        "program": __version__,
        "seed": planned.wanted.seed,
        "environments": [Path(name).name for name in planned.environments],
        "measures": list(measures),
        "agents": [vars(agent) for agent in planned.agents],
        "cells": matrix(found, catalogue, measures),
    }
    save(planned.wanted.out, document)
    return document
