"""Telling trackers what each iteration came to.

Invariant: a tracker that fails is warned of once and left out; it never ends a run. An iteration is told once, however
often the run is broken off.
"""

from __future__ import annotations

import logging
import resource
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from influence_cli.schemas.configs import TrainConfig
from influence_cli.store.reader import RunReader
from influence_cli.store.run_directory import RunDirectory
from influence_cli.training.protocol import Example, TrackedRun, Tracker
from influence_cli.training.report import training_figures
from influence_cli.training.rewards import candidates

_log = logging.getLogger(__name__)
_EXAMPLES = 3
FOLDER = "trackers"


class Tracking:
    """The trackers of one run."""

    def __init__(self, trackers: Mapping[str, Tracker] | None = None) -> None:
        self._trackers = dict(trackers or {})
        self.failed: dict[str, str] = {}

    def start(self, directory: RunDirectory, *, resumed: bool) -> None:
        """Begin every tracker's record."""
        config = directory.manifest.model_dump(mode="json")
        for name in list(self._trackers):
            folder = directory.path.resolve() / FOLDER / name
            folder.mkdir(parents=True, exist_ok=True)
            run = TrackedRun(name=directory.manifest.run_id, folder=str(folder), config=config, resumed=resumed)
            self._tell(name, lambda tracker, run=run: tracker.start(run))  # type: ignore[misc]

    def log(
        self, directory: RunDirectory, iteration: int, stages: Mapping[str, Any], config: TrainConfig
    ) -> dict[str, Any]:
        """Tell every tracker of an iteration; return what the run keeps of that."""
        if not self._trackers:
            return {}
        with RunReader(directory) as run:
            figures = next(row for row in training_figures(run) if row["iteration"] == iteration)
            examples = list(examples_of(run, iteration, config))
        metrics = {**dict(metrics_of(figures, stages)), **system_figures(directory.path)}
        for name in list(self._trackers):
            self._tell(name, lambda tracker: tracker.log(iteration, metrics, examples))
        return {"trackers": list(self._trackers), "metrics": len(metrics)}

    def close(self, state: str) -> None:
        """End every record."""
        for name in list(self._trackers):
            self._tell(name, lambda tracker: tracker.close(state))

    def _tell(self, name: str, what: Callable[[Tracker], None]) -> None:
        try:
            what(self._trackers[name])
        except Exception as error:  # noqa: BLE001 - whatever a tracker does wrong is its own problem
            told = f"{type(error).__name__}: {error}"
            self.failed[name] = told
            _log.warning("The tracker %s failed and is left out: %s", name, told, exc_info=True)
            del self._trackers[name]


def metrics_of(figures: Mapping[str, Any], stages: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Yield name and value of everything in an iteration's figures that is a number."""
    for split in ("heldout", "train"):
        found = figures[split]
        if found:
            for key in ("conversations", "failed", "unrated", "veto"):
                yield from _number(f"{split}/{key}", found[key])
            for key in ("mean", "low", "high"):
                yield from _number(f"{split}/reward/{key}", (found["reward"] or {}).get(key))
            for population, value in found["by_population"].items():
                yield from _number(f"{split}/reward/{population}", value)
    for stage, found in figures["stages"].items():
        for key, value in (found or {}).items():
            yield from _number(f"stages/{stage}/{key}", value)
    for stage, seconds in figures["seconds"].items():
        yield from _number(f"seconds/{stage}", seconds)
    for step, loss in enumerate((stages.get("train") or {}).get("losses", ())):
        if step % 10 == 0:
            yield from _number(f"loss/step-{step}", loss)


def _number(name: str, value: Any) -> Iterator[tuple[str, float]]:
    if isinstance(value, int | float) and not isinstance(value, bool):
        yield name, float(value)


def system_figures(folder: Path) -> dict[str, float]:
    """Return what this process and its children have taken, and what the disk has left."""
    mine, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return {
        "system/peak_rss_mib": mine.ru_maxrss / unit,
        "system/children_peak_rss_mib": children.ru_maxrss / unit,
        "system/cpu_seconds": mine.ru_utime + mine.ru_stime + children.ru_utime + children.ru_stime,
        "system/disk_free_gib": shutil.disk_usage(folder).free / 2**30,
    }


def examples_of(run: RunReader, iteration: int, config: TrainConfig) -> Iterator[Example]:
    """Yield the best and the worst rated held-out conversations of an iteration."""
    rated = sorted(
        candidates(run, iteration, "heldout", config.selection).rated, key=lambda c: (-c.reward, c.hash(config.seed))
    )
    shown = {each.episode_id: each.reward for each in [*rated[:_EXAMPLES], *rated[-_EXAMPLES:]]}
    for number, trajectory in run.numbered(finished=True, iteration=iteration, split="heldout"):
        if number in shown:
            said = "\n\n".join(f"{message['speaker']}: {message['text']}" for message in trajectory["messages"])
            title = f"{trajectory['scenario']}/{trajectory['initial_state']} #{trajectory['sample']}"
            yield Example(title=title, reward=shown[number], text=said)
