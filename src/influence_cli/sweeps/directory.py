"""The folder of a sweep: made, found, locked.

    runs/<sweep>/  sweep.yaml  base.yaml  sweep.db  trials/000/  trials/001/  ...  logs/000.log  report/

``trials/000`` is an ordinary run; with several seeds it holds one run for each, ``trials/000/seed-0``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from influence_cli.documents import read_document, read_manifest, save_document
from influence_cli.errors import InfluenceError, UnknownNameError
from influence_cli.schemas.sweeps import Study, SweepConfig, SweepManifest
from influence_cli.store.connection import file_error
from influence_cli.store.run_directory import MANIFEST as RUN_MANIFEST
from influence_cli.store.run_directory import RUNS, fresh_directory

MANIFEST = "sweep.yaml"
BASE = "base.yaml"
SCHEMA_VERSION = 1
_LATEST = "latest"


@dataclass(frozen=True)
class SweepDirectory:
    """A sweep on disk: where it is, and what it says of itself."""

    path: Path
    manifest: SweepManifest

    @property
    def config(self) -> SweepConfig:
        """What was asked for."""
        return self.manifest.config

    @cached_property
    def base(self) -> dict[str, Any]:
        """The settings of every trial."""
        data = read_document(self.path / BASE).data
        return data if isinstance(data, dict) else {}

    def seed(self, index: int) -> int:
        """Return the seed of a trial's run of that index: the same in all trials, so that they can be compared."""
        return int(self.base.get("seed", 0)) + index

    def study(self) -> Study:
        """Return what a searcher is told of the sweep."""
        config = self.config
        return Study(
            name=self.manifest.sweep_id,
            folder=str(self.path),
            seed=config.seed,
            space=config.search,
            objectives=config.objectives,
            trials=config.trials,
        )

    def runs(self, number: int) -> list[Path]:
        """Return the folders of the runs of a trial, one for each seed."""
        folder = self.path / "trials" / f"{number:03d}"
        if self.config.seeds == 1:
            return [folder]
        return [folder / f"seed-{index}" for index in range(self.config.seeds)]

    def log(self, number: int) -> Path:
        """Return the file that holds what the processes of a trial say."""
        return self.path / "logs" / f"{number:03d}.log"

    def remember(self, config: SweepConfig) -> SweepDirectory:
        """Keep the settings that the sweep goes on with; return the sweep with them."""
        manifest = self.manifest.model_copy(update={"config": config})
        if manifest != self.manifest:
            try:
                save_document(self.path / MANIFEST, manifest.model_dump(mode="json"))
            except OSError as error:
                raise file_error(error, self.path) from None
        return SweepDirectory(self.path, manifest)


def create_sweep(path: Path | None, manifest: SweepManifest, base: Mapping[str, Any]) -> SweepDirectory:
    """Make a sweep's folder and return it; without ``path`` it is ``runs/<date>-sweep-<word>``.

    ``base`` are the settings of every trial. InfluenceError if the folder exists and is not empty, or cannot be made.
    """
    try:
        if path is None:
            path = fresh_directory(RUNS, "sweep")
        path.mkdir(parents=True, exist_ok=True)
        if any(path.iterdir()):
            held = (path / MANIFEST).is_file()
            hint = f"To go on with it: influence sweep --resume {path}." if held else "Name another folder."
            raise InfluenceError(f"{path} holds another sweep." if held else f"{path} is not empty.", hint=hint)
        for name in ("trials", "logs"):
            (path / name).mkdir()
        save_document(path / BASE, dict(base))
        save_document(path / MANIFEST, manifest.model_dump(mode="json"))
    except OSError as error:
        raise file_error(error, path or RUNS) from None
    return SweepDirectory(path, manifest)


def open_sweep(path: Path) -> SweepDirectory:
    """Return the sweep in ``path``; InfluenceError if there is none, or it is of a newer version."""
    manifest = path / MANIFEST
    if not manifest.is_file():
        told = "it is a run" if (path / RUN_MANIFEST).is_file() else f"it has no {MANIFEST}"
        raise InfluenceError(f"{path} is no sweep: {told}.", hint="Name the folder that `influence sweep` made.")
    return SweepDirectory(path, read_manifest(manifest, SweepManifest, SCHEMA_VERSION))


def is_sweep(path: Path) -> bool:
    """Return whether ``path`` is the folder of a sweep."""
    return (path / MANIFEST).is_file()


def sweep_directories(root: Path = RUNS) -> list[Path]:
    """Return the sweeps directly under ``root``, oldest first; reads no sweep."""
    if not root.is_dir():
        return []
    sweeps = [entry for entry in root.iterdir() if is_sweep(entry)]
    return sorted(sweeps, key=lambda entry: ((entry / MANIFEST).stat().st_mtime_ns, entry.name))


def find_sweep(name: str, *, root: Path = RUNS) -> Path:
    """Return the sweep called ``name``: a path, a name under ``root``, or ``latest``; InfluenceError if there is none."""
    sweeps = sweep_directories(root)
    if name == _LATEST and sweeps:
        return sweeps[-1]
    for candidate in (Path(name), root / name):
        if is_sweep(candidate):
            return candidate
    if Path(name).is_dir():
        open_sweep(Path(name))
    raise UnknownNameError("sweep", name, [sweep.name for sweep in sweeps])
