"""Ends processes when whoever started them ends, even by ``kill -9``; a program of its own that needs only Python.

    guard.py -- COMMAND...     runs COMMAND and returns its exit code
    guard.py                   runs nothing; each line of standard input names the id of a process to end

Concept: standard input is a pipe whose other end is held by the one who started this. When it closes, for whatever
reason, what was started or named is asked to end (SIGTERM), and after some seconds made to (SIGKILL). SIGTERM to this
program does the same at once, SIGINT without the seconds.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable

GRACE_SECONDS = 10.0
_LOOK_SECONDS = 0.05
_DEATH_SIGNAL = 1
"""PR_SET_PDEATHSIG of Linux."""


def started_at(pid: int) -> str | None:
    """Return when a process began, by which it is told from a later one with its id; None if there is none."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:  # noqa: PTH123 - no more imports here
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return "alive" if not os.path.isdir("/proc/self") and _exists(pid) else None  # noqa: PTH112
    return None if fields[0] in "ZX" else fields[19]


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True


def end(send: Callable[[int], None], gone: Callable[[], bool], grace: float = GRACE_SECONDS) -> None:
    """Ask to end, wait, and make whatever is left end."""
    send(signal.SIGTERM)
    until = time.monotonic() + grace
    while time.monotonic() < until and not gone():
        time.sleep(_LOOK_SECONDS)
    send(signal.SIGKILL)


def run(command: list[str]) -> int:
    """Run ``command`` in a session of its own until it ends, or standard input does; return its exit code."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=_die_with_parent)  # noqa: S603, PLW1509 - single-threaded here

    def send(number: int) -> None:
        with contextlib.suppress(OSError):
            os.killpg(process.pid, number)

    def group_is_gone() -> bool:
        process.poll()
        try:
            os.killpg(process.pid, 0)
        except OSError:
            return True
        return False

    def stop(grace: float = GRACE_SECONDS) -> None:
        end(send, group_is_gone, grace)

    def until_closed() -> None:
        while os.read(0, 4096):
            pass
        stop()

    threading.Thread(target=until_closed, daemon=True).start()
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=stop, daemon=True).start())
    signal.signal(signal.SIGINT, lambda *_: threading.Thread(target=stop, args=(0.0,), daemon=True).start())
    code = process.wait()
    send(signal.SIGKILL)
    return code if code >= 0 else 128 - code


def watch() -> int:
    """Read process ids until standard input closes, then end those that are still the same processes."""
    watched: dict[int, str] = {}
    for line in sys.stdin:
        pid = int(line)
        begun = started_at(pid)
        if begun is not None:
            watched[pid] = begun

    def left() -> list[int]:
        return [pid for pid, begun in watched.items() if started_at(pid) == begun]

    def send(number: int) -> None:
        for pid in left():
            with contextlib.suppress(OSError):
                os.kill(pid, number)

    end(send, lambda: not left())
    return 0


def _die_with_parent() -> None:
    """Have the kernel end this process with its parent, where it can (Linux)."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_DEATH_SIGNAL, signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(run(sys.argv[2:]) if sys.argv[1:2] == ["--"] else watch())
