"""The command line of this program, for a task that runs it."""

from __future__ import annotations

import sys


def program(*arguments: str) -> tuple[str, ...]:
    """Return the command line of this program with ``arguments``."""
    return (sys.executable, "-m", "influence_cli", *arguments)
