"""Looking at a trial's run from outside: how it is, what it has used, what it came to, what it said last."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from influence_cli.errors import InfluenceError
from influence_cli.launching.logs import told_error
from influence_cli.schemas.sweeps import Objective, Reading
from influence_cli.store.connection import DISK_FULL, is_full
from influence_cli.store.merge import holds_nothing
from influence_cli.store.queries import is_finished
from influence_cli.store.reader import RunReader
from influence_cli.store.run_directory import DATABASE, MANIFEST, holder, open_run
from influence_cli.sweeps.objectives import (
    KINDS,
    Usage,
    measured_iterations,
    read_objective,
    usage,
    why_missing,
)

_FIRST_STEP = 1
"""Iteration 0 is before anything was learnt: it says nothing of how a trial learns."""


@contextmanager
def _reading(path: Path) -> Iterator[RunReader | None]:
    """Open the run in ``path``; None where there is nothing to read yet."""
    if not (path / MANIFEST).is_file() or not (path / DATABASE).is_file() or holds_nothing(path / DATABASE):
        yield None
        return
    with RunReader(open_run(path)) as run:
        yield run


def run_state(path: Path) -> str | None:
    """Return the state of the run in ``path``: running, stopped, done or failed; None where none has begun."""
    if not (path / MANIFEST).is_file():
        return None
    with _reading(path) as run:
        return "stopped" if run is None else run.state()


def is_had(path: Path) -> bool:
    """Return whether the run in ``path`` is done, and no more of it failed than it allows: it needs only be read."""
    with _reading(path) as run:
        return run is not None and is_finished(run)


def used_by(path: Path) -> Usage:
    """Return what the run in ``path`` has used so far."""
    with suppress(InfluenceError), _reading(path) as run:  # a database whose tables are not all made yet
        if run is not None:
            return usage(run)
    return Usage()


def steps_of(path: Path, objective: Objective, known: Sequence[int]) -> dict[int, float]:
    """Return what ``objective`` came to after each iteration that is not ``known``, from the first one that learnt."""
    found: dict[int, float] = {}
    if not KINDS[objective.name].steps:
        return found
    with suppress(InfluenceError), _reading(path) as run:
        for iteration in measured_iterations(run) if run is not None else ():
            if iteration >= _FIRST_STEP and iteration not in known:
                reading = read_objective(run, objective.name, iteration) if run is not None else None
                if reading is not None:
                    found[iteration] = reading.value
    return found


def readings_of(path: Path, objectives: Sequence[Objective]) -> list[Reading] | str:
    """Return what the run in ``path`` came to by each objective at its last iteration, or why there is no telling."""
    found: list[Reading] = []
    with RunReader(open_run(path)) as run:
        last = max(measured_iterations(run), default=0)
        for objective in objectives:
            reading = read_objective(run, objective.name, last)
            if reading is None:
                return why_missing(objective.name)
            found.append(reading)
    return found


def clear_unborn(path: Path) -> None:
    """Remove what a run left behind that was killed before it was one: a folder without settings or conversations."""
    if path.is_dir() and not (path / MANIFEST).is_file() and holder(path) is None:
        shutil.rmtree(path)


def why_ended(code: int | None, log: Path) -> str:
    """Return why a run ended with ``code``: the last error that it told, or the signal that ended it; None: nobody knows."""
    if code is None or code < 0:
        with suppress(ValueError):
            return f"ended by {signal.Signals(-(code or 0)).name}; see {log}"
        return f"its job was lost; see {log}"
    return told_error(log) or f"exit code {code}; see {log}"


def lacks_room(path: Path, why: str) -> bool:
    """Return whether the run in ``path`` ended because the disk is full: it said so, or had no room to."""
    return DISK_FULL in why or is_full(path.parent)
