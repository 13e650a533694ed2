"""``influence``, and ``python -m influence_cli``."""

from __future__ import annotations

import io
import os
import signal
import sys
from pathlib import Path
from types import TracebackType
from typing import TextIO

STOPPED_BEFORE_THE_START = 3
"""As errors.EXIT_STOPPED, which is not imported yet."""


def main() -> None:
    """Run the command line; the process ends with its exit code."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # who ends a process politely gets what Ctrl-C gets
    sys.stdout, sys.stderr = _writable(sys.stdout), _writable(sys.stderr)
    try:
        from influence_cli.cli.app import build_app

        app = build_app()
    except KeyboardInterrupt:
        sys.exit(STOPPED_BEFORE_THE_START)
    sys.excepthook = _tell_bug
    app()


def _tell_bug(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Show the traceback of a bug, with whatever it holds of keys blotted out."""
    import traceback

    from influence_cli.credentials import without_secrets

    sys.stderr.write(without_secrets("".join(traceback.format_exception(kind, error, trace))))


def _writable(stream: TextIO | None) -> TextIO:
    """Return ``stream`` such that any text can be written to it, and one that goes nowhere if it is closed."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")
    return stream or Path(os.devnull).open("w", encoding="utf-8")


if __name__ == "__main__":
    main()
