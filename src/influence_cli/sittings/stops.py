"""Ctrl-C and its like where nothing hears them but Python: one line, and the exit code of what was stopped."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from influence_cli.errors import EXIT_STOPPED, InfluenceError


class StoppedError(InfluenceError):
    """Ctrl-C, or a question that nobody answered."""

    exit_code = EXIT_STOPPED

    def __init__(self, message: str = "Stopped.") -> None:
        super().__init__(message)


@contextmanager
def nothing_begun() -> Iterator[None]:
    """Turn a stop during the block, which begins nothing that could be taken up, into an error that says so."""
    try:
        yield
    except KeyboardInterrupt:
        raise StoppedError("Stopped before anything was begun.") from None
