"""The test server in a process of its own, as a test starts, asks, changes and stops it."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

import influence_cli
from influence_cli.testing.server_config import ServerConfig


class TestServer:
    """A running server, as a test sees it."""

    __test__ = False

    def __init__(self, port: int, process: subprocess.Popen[str]) -> None:
        self.root = f"http://127.0.0.1:{port}"
        self.base_url = f"{self.root}/v1"
        self.process = process

    def stats(self) -> dict[str, Any]:
        """Return the counters."""
        found: dict[str, Any] = self._call("/stats")
        return found

    def bodies(self) -> dict[str, int]:
        """Return how often each request was answered, by its SHA-256."""
        found: dict[str, int] = self._call("/bodies")
        return found

    def tuning(self) -> dict[str, Any]:
        """Return the files that were uploaded for fine-tuning, and the jobs."""
        found: dict[str, Any] = self._call("/tuning")
        return found

    def adapters(self) -> dict[str, Any]:
        """Return which adapters were loaded and unloaded, and whether the server sleeps."""
        found: dict[str, Any] = self._call("/adapters")
        return found

    def reset(self) -> None:
        """Zero the counters and begin the script again."""
        self._call("/reset", {})

    def configure(self, **changes: Any) -> None:
        """Change fields of the server's configuration."""
        self._call("/configure", changes)

    def outage(self, seconds: float) -> None:
        """Let the server be away for so long, beginning in a moment."""
        self._call("/outage", {"seconds": seconds})

    def _call(self, path: str, data: Any = None) -> Any:
        body = None if data is None else orjson.dumps(data)
        request = urllib.request.Request(self.root + path, data=body)  # noqa: S310 - always http
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=30) as response:
            return orjson.loads(response.read())


@contextmanager
def serve(**config: Any) -> Iterator[TestServer]:
    """Run a server in another process, with the fields of ``ServerConfig`` given; it stops with the block."""
    shown = ServerConfig(**config).model_dump_json()
    source = str(Path(influence_cli.__file__).parent.parent)
    path = os.pathsep.join(part for part in (source, os.environ.get("PYTHONPATH")) if part)
    command = [sys.executable, "-m", "influence_cli.testing.server", "--port", "0", "--config", shown, "--with-stdin"]
    with subprocess.Popen(  # noqa: S603 - ourselves
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            if not line:
                raise RuntimeError(f"the test server did not start (exit code {process.wait(10)})")
            yield TestServer(orjson.loads(line)["port"], process)
        finally:
            process.stdin.close()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
