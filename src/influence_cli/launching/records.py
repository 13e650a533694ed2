"""Which jobs go on by themselves: a file ``jobs.json`` in the directory of the run that they work on.

Invariant: it is read and written anew by one process at a time, so that no record of another is lost.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import Field, JsonValue, ValidationError

from influence_cli.errors import InfluenceError
from influence_cli.launching.protocol import Resources, Task
from influence_cli.schemas.frozen import Frozen
from influence_cli.whole_files import write_whole

FILE = "jobs.json"
_LOCK = "jobs.lock"


class JobRecord(Frozen):
    """A job that outlives who started it, and how to find it again."""

    id: str = Field(description="What its launcher knows it by.")
    launcher: str = Field(description="Name of the launcher.")
    options: dict[str, JsonValue] = Field(default_factory=dict, description="Options of the launcher.")
    name: str = Field(description="Of the task.")
    command: tuple[str, ...] = Field(description="What it runs.")
    log: str = Field(description="Where what it says is kept.")
    started: str = Field(description="ISO 8601 time in UTC.")

    def task(self) -> Task:
        """Return the task that the job was started for."""
        return Task(self.name, self.command, Path(self.log), Resources(), outlives=True)


class _Records(Frozen):
    """The file as a whole."""

    jobs: tuple[JobRecord, ...] = Field(default=(), description="Oldest first.")


def read_records(folder: Path) -> list[JobRecord]:
    """Return the jobs of the run in ``folder``, oldest first; InfluenceError if the file is damaged."""
    path = folder / FILE
    try:
        return list(_Records.model_validate_json(path.read_bytes()).jobs)
    except FileNotFoundError:
        return []
    except (OSError, ValidationError):
        raise InfluenceError(f"{path} cannot be read.", hint="Remove it: the jobs themselves go on.") from None


def add_record(folder: Path, record: JobRecord) -> None:
    """Remember a job of the run in ``folder``."""
    with _alone(folder):
        _write(folder, _Records(jobs=(*read_records(folder), record)))


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    with (folder / _LOCK).open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # let go when it is closed
        yield


def _write(folder: Path, records: _Records) -> None:
    write_whole(folder / FILE, f"{records.model_dump_json(indent=2)}\n".encode())


def drop_records(folder: Path, names: Iterable[str]) -> None:
    """Forget the jobs of the run in ``folder`` that were started for the tasks ``names``."""
    gone = set(names)
    if not any(record.name in gone for record in read_records(folder)):
        return
    with _alone(folder):
        _write(folder, _Records(jobs=tuple(record for record in read_records(folder) if record.name not in gone)))


def find_record(known: Iterable[tuple[Path, JobRecord]], name: str) -> tuple[Path, JobRecord]:
    """Return the job with the identifier ``name``, or the last one of the run so called, and the run's folder.

    ``known`` are the jobs that there are, each with its folder. InfluenceError if there is none, or several.
    """
    known = list(known)
    found = [(folder, record) for folder, record in known if record.id == name]
    of_run = [(folder, record) for folder, record in known if is_called(folder, name)]
    if len(found) > 1:
        raise InfluenceError(f"{len(found)} jobs are called {name}.", hint="Name the run instead.")
    if not found and not of_run:
        raise InfluenceError(f"There is no job {name!r}.", hint="See `influence jobs list`.")
    return found[0] if found else of_run[-1]


def is_called(folder: Path, name: str) -> bool:
    """Return whether ``name`` means the run in ``folder``."""
    return name in (folder.name, str(folder))


def record_of(task: Task, job_id: str, launcher: str, options: dict[str, Any], started: str) -> JobRecord:
    """Return the record of a job that was started for ``task``."""
    return JobRecord(
        id=job_id,
        launcher=launcher,
        options=options,
        name=task.name,
        command=task.command,
        log=str(task.log),
        started=started,
    )
