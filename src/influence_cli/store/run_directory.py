"""The directory of a run: made, found, locked.

    runs/<run-id>/  run.yaml  run.db  adapters/  logs/  report/

Invariant: at most one process writes a run, or a shard of it; the lock is the kernel's, so that a dead process leaves
none behind.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import IO

from influence_cli.documents import read_manifest, save_document
from influence_cli.errors import InfluenceError, UnknownNameError
from influence_cli.schemas.configs import RunManifest, SimulationConfig
from influence_cli.seeding import derive_seed
from influence_cli.store.connection import file_error
from influence_cli.store.schema import SCHEMA_VERSION
from influence_cli.store.shards import Shard
from influence_cli.store.writer import RunWriter

MANIFEST = "run.yaml"
DATABASE = "run.db"
LOCK = "run.lock"
SHARD_PATTERN = "run-*.db"
RUNS = Path("runs")
LATEST = "latest"
_TRIES, _PAUSE = 10, 0.05
_OWNER = re.compile(r"(?:(?P<host>[\w.-]+) )?(?P<process>\d{1,10})", re.ASCII)

_WORDS = (
    "acorn alder amber apple aspen badger balsam barley basil beech birch bramble brook calm cedar cherry "
    "clover coral cove crane creek dahlia daisy dawn delta dune elder elm ember fern field finch fjord flint "
    "forest fox garnet glade grove harbour hazel heath heron hill holly iris island ivory ivy jade jasper "
    "juniper kelp kite lagoon lake larch lark laurel lemon lichen lilac linden lotus lupin lynx maple marsh "
    "meadow mint moss myrtle nectar oak ocean olive opal orchid osprey otter pearl pebble pine plover plum "
    "pond poplar prairie quail quartz quince raven reed ridge river robin rowan ruby rush saffron sage sand "
    "shore sorrel sparrow spruce stone summit swallow swan tern thistle thrush thyme topaz valley violet "
    "walnut wave willow wren"
).split()


@dataclass(frozen=True)
class RunDirectory:
    """A run on disk: where it is, and what it says of itself."""

    path: Path
    manifest: RunManifest
    shard: Shard | None = None
    """Whose database is meant; None: the run's own."""

    @property
    def database(self) -> Path:
        """The SQLite file."""
        return self.path / (DATABASE if self.shard is None else f"run-{self.shard.name}.db")

    @property
    def lock(self) -> Path:
        """The file that who writes the database holds locked."""
        return self.path / (LOCK if self.shard is None else f"run-{self.shard.name}.lock")

    def of_shard(self, shard: Shard | None) -> RunDirectory:
        """Return the same run with the database of ``shard``."""
        return replace(self, shard=shard)

    def remember(self, config: SimulationConfig) -> None:
        """Keep the settings that the run goes on with in its manifest; only while holding it for writing."""
        if config == self.manifest.config:
            return
        path = self.path / MANIFEST
        try:
            made = path.stat().st_mtime_ns
            save_document(
                self.path / MANIFEST, self.manifest.model_copy(update={"config": config}).model_dump(mode="json")
            )
            os.utime(path, ns=(made, made))  # the age of a run is that of its manifest
        except OSError as error:
            raise file_error(error, self.path) from None

    @contextmanager
    def writer(self) -> Iterator[RunWriter]:
        """Hold the run for writing; InfluenceError if another process does, or it cannot be written."""
        with locked(self.path, self.lock), RunWriter(self.database, self.manifest.run_id) as writer:
            yield writer


def create_run(path: Path | None, manifest: RunManifest, *, root: Path = RUNS) -> RunDirectory:
    """Make a run's directory and return it; without ``path`` it is ``<root>/<date>-<command>-<word>``.

    Raises InfluenceError if the directory exists and is not empty, or cannot be made.
    """
    try:
        if path is None:
            directory = fresh_directory(root, manifest.command)
        else:
            directory = path
            _refuse_strange_name(directory)
            directory.mkdir(parents=True, exist_ok=True)
        refuse_filled(directory, resumable=(directory / MANIFEST).is_file())
        (directory / "logs").mkdir()
        made = manifest.model_copy(update={"run_id": directory.resolve().name})
        save_document(directory / MANIFEST, made.model_dump(mode="json"))
    except OSError as error:
        raise file_error(error, path or root) from None
    return RunDirectory(directory, made)


def refuse_filled(directory: Path, *, resumable: bool) -> None:
    """Raise InfluenceError if ``directory`` is there and not empty; the mend depends on whether it can be gone on with."""
    if directory.exists() and any(directory.iterdir()):
        hint = f"To go on with it: --resume --out {directory}." if resumable else "Name another directory."
        raise InfluenceError(f"{directory} is not empty.", hint=hint)


def _refuse_strange_name(directory: Path) -> None:
    try:
        f"{directory}{directory.resolve().name}".encode()
    except UnicodeEncodeError:
        raise InfluenceError(f"{directory} is no name in UTF-8.", hint="Name another directory with --out.") from None


def fresh_directory(root: Path, command: str) -> Path:
    """Make a directory that no other process has, and return it."""
    date = datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
    start = derive_seed(date, os.getpid())
    for number in range(len(_WORDS)):
        path = root / f"{date}-{command}-{_WORDS[(start + number) % len(_WORDS)]}"
        with suppress(FileExistsError):
            path.mkdir(parents=True)
            return path
    raise InfluenceError(f"No name is free in {root}.", hint="Name a directory with --out.")


def open_run(path: Path) -> RunDirectory:
    """Return the run in ``path``; InfluenceError if there is none, or it is of a newer version."""
    manifest = path / MANIFEST
    if not manifest.is_file():
        raise InfluenceError(f"{path} is no run: it has no {MANIFEST}.", hint="See `influence runs list`.")
    return RunDirectory(path, read_manifest(manifest, RunManifest, SCHEMA_VERSION))


def shard_files(directory: RunDirectory) -> list[Path]:
    """Return the databases of shards in the run's directory, in the order of their numbers."""
    return sorted(directory.path.glob(SHARD_PATTERN), key=lambda path: (len(path.name), path.name))


def run_directories(root: Path = RUNS) -> list[Path]:
    """Return the runs directly under ``root``, oldest first; reads no run."""
    if not root.is_dir():
        return []
    runs = [entry for entry in root.iterdir() if (entry / MANIFEST).is_file()]
    return sorted(runs, key=lambda entry: ((entry / MANIFEST).stat().st_mtime_ns, entry.name))


def find_run(name: str, *, root: Path = RUNS) -> Path:
    """Return the run called ``name``: a path, a run's identifier under ``root`` or its last word, or ``latest``.

    Raises InfluenceError if there is none or the word is that of several, suggesting the nearest names.
    """
    runs = run_directories(root)
    if name == LATEST:
        if not runs:
            raise InfluenceError(f"There is no run in {root}.", hint="Name its directory.")
        return runs[-1]
    for candidate in (Path(name), root / name):
        if (candidate / MANIFEST).is_file():
            return candidate
    if Path(name).is_dir():
        open_run(Path(name))
    ending = [run for run in runs if name and run.name.endswith(f"-{name}")]
    if len(ending) == 1:
        return ending[0]
    if ending:
        raise InfluenceError(
            f"{name!r} may be any of {len(ending)} runs.", hint=f"Name one: {', '.join(run.name for run in ending)}."
        )
    raise UnknownNameError("run", name, [run.name for run in runs])


def holder(path: Path) -> int | None:
    """Return the process that writes the run in ``path``; None if nobody does."""
    return lock_holder(path / LOCK)


def lock_holder(lock: Path) -> int | None:
    """Return the process that holds ``lock``; None if nobody does."""
    owner = lock_owner(lock)
    return None if owner is None else owner.process


@dataclass(frozen=True)
class Owner:
    """Who holds a lock, as it says there: 0 is no process, and an empty ``host`` none that is known."""

    process: int
    host: str

    @property
    def is_elsewhere(self) -> bool:
        """Whether the process is one of another machine, whose number means nothing here."""
        return self.host not in ("", socket.gethostname())

    def __str__(self) -> str:
        told = str(self.process or "unknown")
        return f"{told} on {self.host}" if self.is_elsewhere else told


def lock_owner(lock: Path) -> Owner | None:
    """Return who holds ``lock``; None if nobody does."""
    try:
        with lock.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                return _owner(file.read())
    except OSError:
        return None
    return None


def _owner(text: bytes) -> Owner:
    match = _OWNER.fullmatch(text.decode(errors="replace").strip())
    return Owner(int(match["process"]), match["host"] or "") if match else Owner(0, "")


@contextmanager
def locked(path: Path, lock: Path | None = None) -> Iterator[None]:
    """Hold the directory ``path`` for writing, by its own ``lock`` or another.

    InfluenceError if another process does, or it cannot be written.
    """
    lock = lock or path / LOCK
    try:
        file = lock.open("ab+", buffering=0)  # what a full disk refuses is not tried again when it is closed
    except OSError as error:
        raise file_error(error, path) from None
    with file:
        if not _got(file):
            file.seek(0)
            raise InfluenceError(
                f"{path} is being written by process {_owner(file.read())}.", hint="Wait for it to end, or stop it."
            )
        with suppress(OSError):
            file.truncate(0)
            file.write(f"{socket.gethostname()} {os.getpid()}".encode())
        yield
        with suppress(OSError):
            file.truncate(0)


def _got(file: IO[bytes]) -> bool:
    """Return whether the lock was to be had; who only looks at it (:func:`holder`) lets it go in a moment."""
    for _ in range(_TRIES):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            time.sleep(_PAUSE)
        else:
            return True
    return False


def remove_run(path: Path) -> None:
    """Delete the run in ``path``; InfluenceError if it is none, is a link, or is being written."""
    if path.is_symlink():
        raise InfluenceError(f"{path} is a link.", hint="Name the directory itself.")
    open_run(path)
    with locked(path):
        try:
            shutil.rmtree(path.resolve())
        except OSError as error:
            raise file_error(error, path) from None
