"""The runs that there are: found, read in a few figures, and read again only when they changed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from influence_cli.errors import InfluenceError
from influence_cli.store.queries import run_line
from influence_cli.store.reader import RunReader
from influence_cli.store.run_directory import DATABASE, holder, open_run, run_directories
from influence_cli.store.steering import is_paused

_Stamp = tuple[float, ...]


@dataclass(frozen=True)
class RunLine:
    """A run in a list. ``problem`` says why it cannot be read; then the figures are absent."""

    path: Path
    name: str
    command: str = ""
    state: str = "unreadable"
    created: str = ""
    conversations: int | None = None
    complete: int | None = None
    failed: int | None = None
    rating: float | None = None
    veto: float | None = None
    environments: tuple[str, ...] = ()
    problem: str | None = None


class RunList:
    """The runs in some folders, and some paths; :meth:`scan` may run on any one thread."""

    def __init__(self, folders: Sequence[Path], paths: Sequence[Path]) -> None:
        self.folders = tuple(folders)
        self.paths = tuple(paths)
        self._known: dict[Path, tuple[_Stamp, RunLine]] = {}

    def scan(self) -> list[RunLine]:
        """Return every run, the newest first."""
        found = [self._line(path) for path in self._directories()]
        return sorted(found, key=lambda line: (line.created or "", line.name), reverse=True)

    def _directories(self) -> Iterable[Path]:
        seen: dict[Path, Path] = {}
        for path in (*self.paths, *(each for folder in self.folders for each in run_directories(folder))):
            seen.setdefault(path.resolve(), path)
        return seen.values()

    def _line(self, path: Path) -> RunLine:
        stamp = _stamp(path)
        known = self._known.get(path)
        if known is not None and known[0] == stamp:
            return known[1]
        line = read_line(path)
        self._known[path] = (stamp, line)
        return line


def _stamp(path: Path) -> _Stamp:
    """Return what changes when the run does."""
    times = []
    for name in (DATABASE, f"{DATABASE}-wal", "run.yaml"):
        try:
            stat = (path / name).stat()
        except OSError:
            times.append(0.0)
        else:
            times.extend((stat.st_mtime, stat.st_size) if stat.st_size else (0.0,))  # a reader leaves an empty log
    return (*times, float(holder(path) or 0), float(is_paused(path)))


def read_line(path: Path) -> RunLine:
    """Return the figures of one run; one that cannot be read says why."""
    name = path.resolve().name
    try:
        directory = open_run(path)
        if not directory.database.is_file():
            state = "running" if holder(path) is not None else "empty"
            manifest = directory.manifest
            return RunLine(path, name, manifest.command, state, manifest.created, 0, 0, 0)
        with RunReader(directory) as run:
            figures = run_line(run)
    except InfluenceError as error:
        return RunLine(path, name, state=_trouble(str(error)), problem=str(error))
    state = figures["state"]
    if state == "running" and is_paused(path):
        state = "paused"
    if not figures["conversations"] and state in ("stopped", "done"):
        state = "empty"
    return RunLine(
        path=path,
        name=name,
        command=figures["command"],
        state=state,
        created=figures["created"],
        conversations=figures["conversations"],
        complete=figures["complete"],
        failed=figures["failed"],
        rating=figures["mean_rating"],
        veto=figures["mean_veto"],
        environments=tuple(figures["environments"]) or directory.manifest.config.environments,
    )


def _trouble(problem: str) -> str:
    if "newer version" in problem:
        return "newer"
    if "older version" in problem:
        return "older"
    return (
        "damaged" if "damaged" in problem or "no run database" in problem or "no database" in problem else "unreadable"
    )
