"""The end of what a task said: its log may be long, and only its last words are of interest."""

from __future__ import annotations

import os
from pathlib import Path

_MOST = 16_384
"""Bytes of a log that are read at once."""
_ERROR = "error: "


def last_lines(log: Path) -> list[str]:
    """Return the last lines of ``log``; none where it cannot be read."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _MOST))
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return []
    return text.strip().splitlines()


def read_end(log: Path, lines: int | None = None) -> tuple[list[str], int]:
    """Return the last ``lines`` of ``log`` (None: all), and at which byte they end; nothing and 0 where there is none."""
    try:
        file = log.open("rb")
    except FileNotFoundError:
        return [], 0
    with file:
        ends = begins = file.seek(0, os.SEEK_END)
        blocks: list[bytes] = []
        while begins and (lines is None or sum(block.count(b"\n") for block in blocks) <= lines):
            size = min(begins, _MOST)
            begins = file.seek(begins - size)
            blocks.insert(0, file.read(size))
    found = b"".join(blocks).decode("utf-8", errors="replace").splitlines()
    return (found if lines is None else found[-lines:]), ends


def told_error(log: Path) -> str | None:
    """Return the last error that a command of this program wrote to ``log``; None where it wrote none."""
    errors = [line for line in last_lines(log) if line.startswith(_ERROR)]
    return errors[-1].removeprefix(_ERROR) if errors else None
