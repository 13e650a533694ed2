"""One sitting of a sweep: its folder held, its searcher and launcher made, its trials had."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from influence_cli.errors import InfluenceError
from influence_cli.launching.signals import hearing_stops
from influence_cli.listening import Listener
from influence_cli.plugins.options import validate_options
from influence_cli.resolution import launcher_with
from influence_cli.schemas.sweeps import TrialRecord
from influence_cli.sittings.lines import number, parameters_text
from influence_cli.sittings.logs import logged
from influence_cli.sittings.sweep.figures import document_of
from influence_cli.sittings.sweep.preparing import Prepared
from influence_cli.store.run_directory import locked
from influence_cli.sweeps.directory import SweepDirectory
from influence_cli.sweeps.protocol import Searcher
from influence_cli.sweeps.records import TrialStore
from influence_cli.sweeps.sweep import Outcome, Sweep


@dataclass(frozen=True)
class Swept:
    """What a sitting came to: the sweep's folder, its exit code and why, all figures, and whether no trial is left."""

    path: Path
    exit_code: int
    reason: str
    figures: dict[str, Any]
    over: bool

    def document(self) -> dict[str, Any]:
        """Return the documented object ``influence.sweep.show/1``, with the reason."""
        return self.figures | {"reason": self.reason or None}


def go(prepared: Prepared, heard: Listener) -> Swept:
    """Have the trials of ``prepared`` that are missing; return what the sweep came to."""
    directory, outcome = _had(prepared, heard)
    figures = document_of(prepared.registry, directory, None)
    return Swept(directory.path, outcome.exit_code, outcome.reason, figures, outcome.over)


def _had(prepared: Prepared, heard: Listener) -> tuple[SweepDirectory, Outcome]:
    assert prepared.directory is not None
    directory = prepared.directory
    try:
        with locked(directory.path):
            directory = directory.remember(prepared.config)
            searcher = _searcher(prepared, directory)
            try:
                with TrialStore(directory.path, write=True) as store, logged(directory.path / "logs", heard.say):
                    return directory, asyncio.run(_sweep(prepared, directory, store, searcher, heard))
            finally:
                searcher.close()
    except InfluenceError:
        if prepared.fresh and not any((directory.path / "trials").iterdir()):
            shutil.rmtree(directory.path)
        raise


def _searcher(prepared: Prepared, directory: SweepDirectory) -> Searcher:
    config = prepared.config.searcher
    component = prepared.registry.component("searcher", str(config.name))
    options = validate_options(component, config.options, flag="--searcher-option ")
    made: Searcher = component.load()(directory.study(), options)
    return made


async def _sweep(
    prepared: Prepared, directory: SweepDirectory, store: TrialStore, searcher: Searcher, heard: Listener
) -> Outcome:
    config = prepared.config.launcher
    launcher = launcher_with(prepared.registry, config.name, config.options)
    sweep = Sweep(directory, store, searcher, launcher, partial(_tell, heard), retry_failed=prepared.retry_failed)

    def asked_to_stop() -> None:
        heard.say("Stopping: trials end resumably.")
        sweep.stop()

    with hearing_stops(asked_to_stop):
        try:
            return await sweep.run()
        finally:
            await launcher.aclose()


def _tell(heard: Listener, trial: TrialRecord) -> None:
    """Say of a trial that it begins, or what it came to."""
    if trial.state == "running":
        heard.say(f"trial {trial.number}: {parameters_text(trial.parameters)} ...")
        return
    told = ", ".join(f"{reading.objective} {number(reading.value)}" for reading in trial.readings)
    heard.say(f"trial {trial.number} {trial.state}: {told or trial.reason}")
