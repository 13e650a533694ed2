"""What runs on a node: an actor that minds one process, which ends with it."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from influence_cli.api import tethered


class Minder:
    """Runs one command on the node that Ray chose; its methods are called by several threads at once.

    ``CUDA_VISIBLE_DEVICES`` is as Ray set it for the actor: the GPUs that the task asked for.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._told = threading.Event()

    def node(self) -> str:
        """Return where it runs; an answer means that there was room."""
        return os.uname().nodename

    def run(
        self, command: Sequence[str], log: str, environment: Mapping[str, str], folder: str, minutes: int | None
    ) -> int:
        """Run a command to its end; return its exit code, negative for a signal."""
        Path(log).parent.mkdir(parents=True, exist_ok=True)
        with Path(log).open("ab") as output:
            process = subprocess.Popen(  # noqa: S603 - the command is the task
                tethered(command),
                cwd=folder,
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self._process = process
        if self._told.is_set():
            process.terminate()
        timer = threading.Timer(60.0 * minutes, process.terminate) if minutes is not None else None
        if timer is not None:
            timer.start()
        try:
            return process.wait()
        finally:
            if timer is not None:
                timer.cancel()

    def tell(self) -> None:
        """Tell the command to stop."""
        self._told.set()
        self._send(signal.SIGTERM)
        self._send(signal.SIGCONT)

    def kill(self) -> None:
        """End the command, and all that it started."""
        if self._process is not None and self._process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def _send(self, number: signal.Signals) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.send_signal(number)


class LastingMinder(Minder):
    """One that leaves the exit code beside the log, since who started it may be gone, and then gives its room back."""

    def run_and_leave(
        self, command: Sequence[str], log: str, environment: Mapping[str, str], folder: str, minutes: int | None
    ) -> None:
        """Run a command to its end, leave its exit code, and end."""
        import ray

        code = self.run(command, log, environment, folder, minutes)
        leave_code(Path(log), code)
        ray.actor.exit_actor()


def code_file(log: Path) -> Path:
    """Return where the exit code of a job that outlives its launcher is left."""
    return log.with_suffix(".code")


def leave_code(log: Path, code: int) -> None:
    """Leave an exit code beside its log."""
    part = code_file(log).with_suffix(".part")
    part.write_text(str(code), encoding="utf-8")
    part.replace(code_file(log))
