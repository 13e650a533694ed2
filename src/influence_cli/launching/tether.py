"""What runs a command on this machine in a launcher's name; a script that imports nothing of this program.

    tether.py PARENT COMMAND...         becomes COMMAND, which the kernel ends when its parent, process PARENT, dies
    tether.py FILE SECONDS COMMAND...   runs COMMAND, passes SIGTERM on, or sends it when the SECONDS (0: any) are over,
                                        and leaves its exit code in FILE when it ends

The kernel's part is Linux's PR_SET_PDEATHSIG, which outlasts the exec; elsewhere the command is only run.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

_PR_SET_PDEATHSIG = 1


def tethered(parent: int, command: list[str]) -> None:
    """Become ``command``, which ends with ``parent``."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before it could be said
            sys.exit(-signal.SIGKILL)
    os.execvp(command[0], command)  # noqa: S606 - the command is the task


def kept(file: Path, seconds: float, command: list[str]) -> None:
    """Run ``command`` to its end, and tell it to stop after ``seconds`` if any; leave its exit code in ``file``."""
    told: list[int] = []
    started: list[subprocess.Popen[bytes]] = []

    def pass_on(number: int, _: object) -> None:
        told.append(number)
        for process in started:
            process.terminate()

    for number in (signal.SIGTERM, *([signal.SIGALRM] if seconds else [])):
        signal.signal(number, pass_on)  # before there is anything to end: a command left behind would go on alone
    process = subprocess.Popen(command)  # noqa: S603 - the command is the task
    started.append(process)
    if seconds:
        signal.setitimer(signal.ITIMER_REAL, seconds)
    if told:
        process.terminate()
    code = process.wait()
    part = file.with_name(f"{file.name}.part")
    part.write_text(str(code), encoding="utf-8")
    part.replace(file)


if __name__ == "__main__":
    where, argv = sys.argv[1], sys.argv[2:]
    if where.isdigit():
        tethered(int(where), argv)
    else:
        kept(Path(where), float(argv[0]), argv[1:])
