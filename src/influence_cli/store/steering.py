"""Steering the process that writes a run: it is asked to pause, to go on, or to stop.

A pause is a file, ``run.pause``, in the run's directory: while it is there, the writer begins no further call; those in
flight are finished and stored. It holds who asked and when. A stop is SIGTERM to the process that holds the run's lock:
what is in flight gets ten seconds, and the run can be taken up again. A new sitting removes a pause that was left behind.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

from influence_cli.errors import InfluenceError
from influence_cli.store.connection import file_error
from influence_cli.store.run_directory import LOCK, Owner, lock_owner

PAUSE = "run.pause"


def is_paused(path: Path) -> bool:
    """Return whether the run in ``path`` has been asked to pause."""
    return (path / PAUSE).exists()


def pause_run(path: Path, author: str) -> None:
    """Ask whoever writes the run in ``path`` to pause; InfluenceError if nobody does."""
    _owner(path)
    try:
        (path / PAUSE).write_text(f"{author} {time.strftime('%Y-%m-%dT%H:%M:%S%z')}\n", encoding="utf-8")
    except OSError as error:
        raise file_error(error, path / PAUSE) from None


def unpause_run(path: Path) -> None:
    """Let the run in ``path`` go on."""
    with suppress(FileNotFoundError):
        try:
            (path / PAUSE).unlink()
        except PermissionError as error:
            raise file_error(error, path / PAUSE) from None


def stop_run(path: Path) -> int:
    """Ask the process that writes the run in ``path`` to stop, resumably; return its number. InfluenceError if none."""
    owner = _owner(path)
    process = owner.process
    if owner.is_elsewhere:
        raise InfluenceError(f"Process {process} runs on {owner.host}.", hint="Stop it there.")
    try:
        os.kill(process, signal.SIGTERM)
    except ProcessLookupError:
        raise InfluenceError(
            f"Process {process} does not run on this machine.", hint="Stop it where it runs."
        ) from None
    except PermissionError:
        raise InfluenceError(f"Process {process} belongs to somebody else.") from None
    return process


def _owner(path: Path) -> Owner:
    owner = lock_owner(path / LOCK)
    if owner is None or not owner.process:
        raise InfluenceError(f"Nobody is writing {path}.")
    return owner
