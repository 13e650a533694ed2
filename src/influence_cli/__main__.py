"""``influence``, and ``python -m influence_cli``."""

from __future__ import annotations

import io
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from types import FrameType, TracebackType
from typing import TextIO

_STOPPED = 3
"""As errors.EXIT_STOPPED, which is not imported yet."""


def main() -> None:
    """Run the command line; the process ends with its exit code."""
    heard = [signal.SIGTERM]  # who ends a process politely gets what Ctrl-C gets
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        heard.append(signal.SIGINT)
    for number in heard:
        signal.signal(number, _stop_at_once)
    sys.stdout, sys.stderr = _writable(sys.stdout), _writable(sys.stderr)
    try:
        from influence_cli.cli.app import build_command

        command = build_command()
        sys.excepthook = _tell_bug
        for number in heard:
            signal.signal(number, signal.default_int_handler)
        command()
    except KeyboardInterrupt:  # before the command line was read, or after all was said
        sys.stderr.write("Stopped.\n")
        sys.exit(_STOPPED)


def _stop_at_once(_number: int, _frame: FrameType | None) -> None:
    """End the process as it gathers its commands: nothing is there to be put away, and an import tells no tale."""
    with suppress(OSError):
        os.write(2, b"Stopped before anything was begun.\n")
    os._exit(_STOPPED)


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
