"""The command line of a trial's run: an ordinary ``influence train`` or ``influence simulate``."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import JsonValue

from influence_cli.documents import plain_value
from influence_cli.schemas.configs import Budget
from influence_cli.schemas.sweeps import Parameters
from influence_cli.sweeps.directory import BASE, SweepDirectory

PROGRAM = (sys.executable, "-m", "influence_cli")
_PAIR = re.compile(r"\\ud[89ab][0-9a-f]{2}\\ud[c-f][0-9a-f]{2}")
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./")


def assignments(parameters: Parameters, keys: Mapping[str, str]) -> list[str]:
    """Return ``key=value`` for each parameter, which ``--set`` reads back as it was."""
    return [f"{keys[name]}={as_yaml(value)}" for name, value in parameters.items()]


def as_yaml(value: JsonValue) -> str:
    """Return ``value`` as YAML of one line: bare where that is read back as the same."""
    if isinstance(value, str) and value and set(value) <= _PLAIN and plain_value(value) == value:
        return value
    return repr(value) if isinstance(value, float) else _PAIR.sub(_as_one, json.dumps(value))


def _as_one(pair: re.Match[str]) -> str:
    """Return a character that JSON writes as two escapes as the one escape that YAML has for it."""
    character = json.loads('"' + pair.group() + '"')
    return f"\\U{ord(character):08x}"


def begin_command(sweep: SweepDirectory, parameters: Parameters, index: int, path: Path, budget: Budget) -> list[str]:
    """Return the command that begins the run of a trial in ``path`` that has the seed of ``index``."""
    settings = _settings(parameters, sweep.manifest.keys, sweep.seed(index))
    base = str((sweep.path / BASE).resolve())
    where = ["--out", str(path.resolve())]
    return [*PROGRAM, sweep.config.command, "-c", base, *settings, *where, *_limits(budget), "--quiet", "--json"]


def resume_command(sweep: SweepDirectory, path: Path, budget: Budget) -> list[str]:
    """Return the command that takes a trial's run up again."""
    return [*PROGRAM, sweep.config.command, "--resume", str(path.resolve()), *_limits(budget), "--quiet", "--json"]


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
