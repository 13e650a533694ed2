"""Whole processes that take turns, so that what else a machine does falls on all of them alike.

Concept: each process runs for a slice while the others are stopped (SIGSTOP), until all have ended. A process's time is
that in which it was not stopped. Only for processes that work by themselves: a client whose server goes on while the
client is stopped would gain by it.
"""

import os
import shlex
import signal
import subprocess
import tempfile
import time

SLICE_S = 15.0
_POLL_S = 0.05


class Paused:
    """One process, and when it was stopped."""

    def __init__(self, command):
        self.command = command
        self.out = tempfile.TemporaryFile("w+")  # noqa: SIM115 - read after the process has ended
        self.process = subprocess.Popen(command, stdout=self.out, start_new_session=True)
        self.pauses = []
        self.begun, self.ended = time.perf_counter(), None
        self.peak_mb = self.cpu_s = 0.0

    def run(self, seconds):
        """Let it run for so long, or until it ends; it is stopped before and after."""
        if self.pauses:
            os.killpg(self.process.pid, signal.SIGCONT)
            self.pauses[-1] = (self.pauses[-1][0], time.perf_counter())
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            pid, status, usage = os.wait4(self.process.pid, os.WNOHANG)
            if pid:
                self.ended, self.peak_mb = time.perf_counter(), usage.ru_maxrss / 1024
                self.cpu_s = usage.ru_utime + usage.ru_stime
                self.process.returncode = os.waitstatus_to_exitcode(status)
                if status != 0:
                    raise SystemExit(f"{shlex.join(self.command)} failed with {status}")
                return
            time.sleep(_POLL_S)
        os.killpg(self.process.pid, signal.SIGSTOP)
        self.pauses.append((time.perf_counter(), None))

    def active(self, wall):
        """Return how much of its last ``wall`` seconds it was not stopped."""
        return self._running(self.ended - wall, self.ended)

    def active_until(self, moment):
        """Return how long it was not stopped from its start to ``moment``, a time of the clock on the wall."""
        return self._running(self.begun, time.perf_counter() - (time.time() - moment))

    def _running(self, first, last):
        stopped = (max(0.0, min(stop, last) - max(start, first)) for start, stop in self.pauses)
        return last - first - sum(stopped)

    def printed(self):
        self.out.seek(0)
        return self.out.read()


def take_turns(commands, slice_s=SLICE_S):
    """Run all commands, each for a slice in turn; return them as :class:`Paused`, all ended.

    None outlives this process where it is ended politely (SIGTERM, SIGINT).
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    processes = []
    try:
        for command in commands:
            processes.append(Paused(command))
            processes[-1].run(slice_s)
        while any(p.ended is None for p in processes):
            for process in processes:
                if process.ended is None:
                    process.run(slice_s if any(p.ended is None for p in processes if p is not process) else 3600.0)
    finally:
        for process in processes:
            if process.ended is None:
                os.killpg(process.process.pid, signal.SIGKILL)
    return processes
