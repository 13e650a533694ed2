"""A small disk of one's own, to be filled: a tmpfs, which only root may mount."""

from __future__ import annotations

import errno
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from influence_cli.testing.faults import Disturb, Result, end, start, until_at_work
from influence_cli.testing.stages import Stage

_BLOCK = 64 * 1024


@contextmanager
def small_disk(folder: Path, megabytes: int = 8) -> Iterator[Path]:
    """Mount a disk of so many megabytes at ``folder``, for the block; OSError where that is not possible."""
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - a fixed command
    if done.returncode:
        raise OSError(errno.EPERM, f"no disk can be mounted: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], capture_output=True, check=False)  # noqa: S603, S607


def can_mount(folder: Path) -> bool:
    """Return whether :func:`small_disk` works here."""
    if os.name != "posix" or os.geteuid() != 0:
        return False
    try:
        with small_disk(folder, 1):
            return True
    except OSError:
        return False


@contextmanager
def filled(disk: Path) -> Iterator[None]:
    """Leave no room on ``disk`` for the block."""
    ballast = disk / ".ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (_BLOCK, 4096, 1):
            while True:
                try:
                    if file.write(b"\0" * size) < size:
                        break
                except OSError:
                    break
    try:
        yield
    finally:
        ballast.unlink(missing_ok=True)


def full_while_at_work(disk: Path, after: int = 5) -> Disturb:
    """Return the disturbance of a disk that is full from so many requests on; the command says so and ends with 2."""

    def disturb(stage: Stage, result: Result) -> None:
        process = start(stage.begin())
        if until_at_work(process, stage, after):
            with filled(disk):
                result.injected += 1
                deadline = time.monotonic() + 120.0
                while process.poll() is None and time.monotonic() < deadline:
                    time.sleep(0.05)
        end(process, result, (0, 2))

    return disturb
