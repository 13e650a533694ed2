"""One sitting of a sweep: its folder held, its searcher and launcher made, its trials had."""

from __future__ import annotations

import asyncio
import shutil
import signal
from contextlib import suppress

from influence_cli.cli import output
from influence_cli.cli.logs import logged
from influence_cli.cli.sweep.preparing import Prepared
from influence_cli.cli.sweep.tables import number, parameters_text
from influence_cli.errors import InfluenceError
from influence_cli.plugins.options import validate_options
from influence_cli.schemas.sweeps import TrialRecord
from influence_cli.store.run_directory import locked
from influence_cli.sweeps.directory import SweepDirectory
from influence_cli.sweeps.protocol import Searcher
from influence_cli.sweeps.records import TrialStore
from influence_cli.sweeps.sweep import Outcome, Sweep


def go(prepared: Prepared) -> tuple[SweepDirectory, Outcome]:
    """Have the trials of ``prepared`` that are missing; return the sweep and how it went."""
    assert prepared.directory is not None
    directory = prepared.directory
    try:
        with locked(directory.path):
            directory = directory.remember(prepared.config)
            searcher = _searcher(prepared, directory)
            try:
                with TrialStore(directory.path, write=True) as store, logged(directory.path / "logs"):
                    return directory, asyncio.run(_sweep(prepared, directory, store, searcher))
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


async def _sweep(prepared: Prepared, directory: SweepDirectory, store: TrialStore, searcher: Searcher) -> Outcome:
    config = prepared.config.launcher
    component = prepared.registry.component("launcher", config.name)
    launcher = component.load()(validate_options(component, config.options, flag="--launcher-option "))
    sweep = Sweep(directory, store, searcher, launcher, _tell)
    loop = asyncio.get_running_loop()

    def asked_to_stop() -> None:
        output.say("Stopping: trials end resumably.")
        sweep.stop()

    for signal_number in (signal.SIGINT, signal.SIGTERM):
        with suppress(NotImplementedError, RuntimeError, ValueError):
            loop.add_signal_handler(signal_number, asked_to_stop)
    try:
        return await sweep.run()
    finally:
        await launcher.aclose()


def _tell(trial: TrialRecord) -> None:
    """Say of a trial that it begins, or what it came to."""
    if trial.state == "running":
        output.say(f"trial {trial.number}: {parameters_text(trial.parameters)} ...")
        return
    told = ", ".join(f"{reading.objective} {number(reading.value)}" for reading in trial.readings)
    output.say(f"trial {trial.number} {trial.state}: {told or trial.reason}")
