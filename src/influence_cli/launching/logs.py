"""The end of what a task said: its log may be long, and only its last words are of interest."""

from __future__ import annotations

from pathlib import Path

_MOST = 16_384
"""Bytes at the end of a log that are read."""
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


def told_error(log: Path) -> str | None:
    """Return the last error that a command of this program wrote to ``log``; None where it wrote none."""
    errors = [line for line in last_lines(log) if line.startswith(_ERROR)]
    return errors[-1].removeprefix(_ERROR) if errors else None
