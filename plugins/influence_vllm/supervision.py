"""A server process that we start, watch, restart and stop.

Concept: the server runs under a guard (:mod:`influence_vllm.guard`) whose standard input we hold, so that it ends with
us however we end. A thread waits for its end: one that nobody asked for is followed by a restart, a few times at most.
``generation`` counts the starts that succeeded, so that a caller knows whether the server that it talked to is still the
same one.
"""

from __future__ import annotations

import asyncio
import http.client
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from influence_cli.api import CallFailedError, InfluenceError, report_progress

_log = logging.getLogger(__name__)
GUARD = Path(__file__).with_name("guard.py")
_LOOK_SECONDS = 0.1
_HALFWAY_SECONDS = 30.0
_HEALTH_SECONDS = 5.0
_STOP_SECONDS = 20.0
_TAIL = 4000
_STARTING = "Starting vLLM"


def free_port() -> int:
    """Return a port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Server:
    """One server on a port of loopback; made by :meth:`start`, which waits until it answers."""

    def __init__(
        self,
        command: Sequence[str],
        port: int,
        log: Path,
        *,
        environment: Mapping[str, str] | None = None,
        start_seconds: float = 1800.0,
        max_restarts: int = 3,
    ) -> None:
        self.port = port
        self.log = log
        self.generation = 0
        self.restarts = 0
        self.state: Literal["starting", "ready", "failed", "stopped"] = "starting"
        self.trouble = ""
        self._command = list(command)
        self._environment = dict(environment or {})
        self._start_seconds = start_seconds
        self._max_restarts = max_restarts
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._watcher: threading.Thread | None = None

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start the server and wait until it is well; InfluenceError if it ends or takes too long."""
        try:
            self._launch()
            self._await_health()
        except BaseException:
            self.stop()
            raise
        report_progress(_STARTING, 1.0)
        self._watcher = threading.Thread(target=self._watch, name="vllm-watch", daemon=True)
        self._watcher.start()

    async def ready(self) -> int:
        """Wait out a restart and return the generation; CallFailedError once there is no server any more."""
        while self.state == "starting":  # noqa: ASYNC110 - a thread changes it
            await asyncio.sleep(_LOOK_SECONDS)
        if self.state != "ready":
            raise CallFailedError("internal", self.trouble or "The server has been stopped.", attempts=0)
        return self.generation

    def is_well(self) -> bool:
        """Return whether the server says that it is."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=_HEALTH_SECONDS)
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def kill(self) -> None:
        """End a server that hangs; it is restarted like one that died."""
        with self._lock:
            process = self._process
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGINT)  # the guard ends it at once

    def wait_for_end(self, generation: int) -> None:
        """Wait until the server of ``generation`` is known to have ended."""
        until = time.monotonic() + _STOP_SECONDS
        while self.state == "ready" and self.generation == generation and time.monotonic() < until:
            time.sleep(_LOOK_SECONDS)

    def stop(self) -> None:
        """End the server; again does nothing."""
        self._stopping.set()
        with self._lock:
            self.state = "stopped"
            process, self._process = self._process, None
        if process is not None:
            self._end(process)
        if self._watcher is not None and self._watcher is not threading.current_thread():
            self._watcher.join(_STOP_SECONDS)

    def _launch(self) -> None:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self._lock:
            if self._stopping.is_set():
                raise InfluenceError("The server has been stopped.")
            with self.log.open("ab") as log:
                try:
                    self._process = subprocess.Popen(  # noqa: S603 - our own program, and what the user named
                        [sys.executable, "-I", str(GUARD), "--", *self._command],
                        stdin=subprocess.PIPE,
                        stdout=log,
                        stderr=subprocess.STDOUT,
                        env=os.environ | self._environment,
                        start_new_session=True,
                    )
                except OSError as error:
                    raise InfluenceError(f"The server cannot be started: {error}") from error

    def _await_health(self) -> None:
        process = self._process
        began = time.monotonic()
        while True:
            waited = time.monotonic() - began
            if process is None or self._stopping.is_set():
                raise InfluenceError("The server has been stopped.")
            if process.poll() is not None:
                raise InfluenceError(
                    f"vLLM ended while it started: {self.last_words()}", hint=f"Its log is {self.log}."
                )
            if waited > self._start_seconds:
                raise InfluenceError(
                    f"vLLM did not start within {self._start_seconds:g} s.",
                    hint=f"Its log is {self.log}; -o start_seconds=... gives it longer.",
                )
            if self.is_well():
                break
            report_progress(_STARTING, 1.0 - 0.5 ** (waited / _HALFWAY_SECONDS))
            self._stopping.wait(_LOOK_SECONDS)
        with self._lock:
            if not self._stopping.is_set():
                self.generation += 1
                self.state = "ready"

    def _watch(self) -> None:
        while (process := self._process) is not None:
            code = process.wait()
            self._close(process)
            with self._lock:
                if self._stopping.is_set():
                    return
                self.state = "starting"
            if self.restarts >= self._max_restarts:
                self._give_up(f"The server died (exit code {code}), the last time of {self.restarts + 1}")
                return
            self.restarts += 1
            _log.warning("The server of vLLM died (exit code %s) and is started again; its log is %s.", code, self.log)
            try:
                self._launch()
                self._await_health()
            except InfluenceError as error:
                if self._stopping.is_set():
                    return
                if self._process is not None and self._process.poll() is None:
                    self._end(self._process)
                _log.warning("%s", error)

    def _give_up(self, why: str) -> None:
        self.trouble = f"{why}: {self.last_words()} Its log is {self.log}."
        with self._lock:
            if not self._stopping.is_set():
                self.state = "failed"

    def last_words(self) -> str:
        """Return the last line of the log that tells of an error, else its last line."""
        try:
            with self.log.open("rb") as file:
                file.seek(max(0, self.log.stat().st_size - _TAIL))
                lines = [line.strip() for line in file.read().decode("utf-8", "replace").splitlines() if line.strip()]
        except OSError:
            return "it left no log."
        told = [line for line in lines if "Error" in line or "error:" in line]
        return (told or lines or ["it said nothing."])[-1][:300]

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        """Close the guard's standard input, which ends the server, and wait for it."""
        self._close(process)
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    @staticmethod
    def _close(process: subprocess.Popen[bytes]) -> None:
        if process.stdin is not None:
            process.stdin.close()
