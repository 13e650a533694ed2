"""A Ray cluster of one node, this machine, for the time of the tests."""

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from secrets import token_hex

import pytest

ADDRESS = re.compile(r"ray start --address='([^']+)'")
START = 120.0
"""Seconds that a cluster may take to begin on a busy machine."""


@pytest.fixture(scope="session")
def cluster(tmp_path_factory) -> Iterator[str]:
    """Start a head with four processors and two GPUs that are not there; yield its address."""
    if find_spec("ray") is None:  # not imported: it reads how to prove who it is only then
        pytest.skip("the extra ray is not installed")
    if "ray" in sys.modules:
        pytest.skip("something imported Ray before it was told its token: run tests/plugins/ray by itself")
    folder = tmp_path_factory.mktemp("ray")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", f"--port={port}"]
    command += ["--num-cpus=4", "--num-gpus=2", "--include-dashboard=false"]
    command += ["--object-store-memory=100000000", "--disable-usage-stats"]
    patch = pytest.MonkeyPatch()
    patch.setenv("RAY_AUTH_MODE", "token")
    patch.setenv("RAY_AUTH_TOKEN", token_hex(32))
    env = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with (folder / "head.log").open("wb") as output:
        head = subprocess.Popen(command, stdout=output, stderr=output, env=env, start_new_session=True)
    try:
        until = time.monotonic() + START
        while not (told := ADDRESS.search((folder / "head.log").read_text())):
            if head.poll() is not None or time.monotonic() > until:
                pytest.skip(f"Ray cannot be started here: {(folder / 'head.log').read_text()[-600:]}")
            time.sleep(0.2)
        yield told[1]
    finally:
        patch.undo()
        head.terminate()
        try:
            head.wait(30)
        except subprocess.TimeoutExpired:
            head.kill()
            head.wait()
