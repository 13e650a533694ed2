"""Where warnings and tracebacks of a run go: all of them to its log file, one line of each to the person who watches."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from influence_cli.credentials import without_secrets

LOG_FILE = "influence.log"
_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class _Blotted(logging.Formatter):
    """Writes no key, whatever a message or a traceback holds."""

    def format(self, record: logging.LogRecord) -> str:
        return without_secrets(super().format(record))


class _Talk(logging.Handler):
    """Says a record's first line; its traceback stands in the file."""

    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._say = say

    def emit(self, record: logging.LogRecord) -> None:
        self._say(record.getMessage().partition("\n")[0])


class _File(logging.FileHandler):
    """A log file that a full disk cannot make noisy: what it would have held was said."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            super().emit(record)
        except OSError:
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: ARG002, N802 - logging's own signature
        self.setLevel(logging.CRITICAL + 1)


@contextmanager
def logged(folder: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Send warnings and errors inside the block to ``folder``/influence.log, and have their first lines said.

    The file is made with its first line; where it cannot be, what is said remains.
    """
    root = logging.getLogger()
    handlers: list[logging.Handler] = [_Talk(say)]
    try:
        folder.mkdir(exist_ok=True)
        file = _File(folder / LOG_FILE, encoding="utf-8", errors="replace", delay=True)
        file.setLevel(logging.WARNING)
        file.setFormatter(_Blotted(_FORMAT))
        handlers.append(file)
    except OSError:
        say(f"{folder} cannot be written: there is no log file.")
    for handler in handlers:
        root.addHandler(handler)
    try:
        yield
    finally:
        for handler in handlers:
            root.removeHandler(handler)
            handler.close()
