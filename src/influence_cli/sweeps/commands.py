"""The command line of a trial's run: an ordinary ``influence train`` or ``influence simulate``."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from influence_cli.launching.commands import program
from influence_cli.schemas.configs import Budget
from influence_cli.schemas.sweeps import Parameters
from influence_cli.settings import assignment
from influence_cli.sweeps.directory import BASE, SweepDirectory


def assignments(parameters: Parameters, keys: Mapping[str, str]) -> list[str]:
    """Return ``key=value`` for each parameter, which ``--set`` reads back as it was."""
    return [assignment(keys[name], value) for name, value in parameters.items()]


def begin_command(sweep: SweepDirectory, parameters: Parameters, index: int, path: Path, budget: Budget) -> list[str]:
    """Return the command that begins the run of a trial in ``path`` that has the seed of ``index``."""
    settings = _settings(parameters, sweep.manifest.keys, sweep.seed(index))
    base = str((sweep.path / BASE).resolve())
    own = (*settings, "--out", str(path.resolve()), *_limits(budget), "--quiet", "--json")
    return list(program(sweep.config.command, "-c", base, *own))


def resume_command(sweep: SweepDirectory, path: Path, budget: Budget) -> list[str]:
    """Return the command that takes a trial's run up again."""
    own = ("--resume", str(path.resolve()), *_limits(budget), "--quiet", "--json")
    return list(program(sweep.config.command, *own))


def pasted(sweep: SweepDirectory, parameters: Parameters) -> str:
    """Return the command that has a trial's run once more, as a person would type it."""
    settings = _settings(parameters, sweep.manifest.keys, sweep.seed(0))
    return shlex.join(["influence", sweep.config.command, "-c", str(sweep.path / BASE), *settings])


def _settings(parameters: Parameters, keys: Mapping[str, str], seed: int) -> list[str]:
    given = assignments(parameters, keys)
    if "seed" not in keys.values():
        given.append(f"seed={seed}")
    return [part for each in given for part in ("--set", each)]


def _limits(budget: Budget) -> Sequence[str]:
    found = []
    if budget.cost is not None:
        found += ["--max-cost", repr(budget.cost)]
    if budget.tokens is not None:
        found += ["--max-tokens", str(budget.tokens)]
    return found
