"""The real command line in a subprocess, with folders of made-up distributions on its path."""

import json
import os
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Answer:
    """What a subprocess said and how it ended."""

    code: int
    stdout: str
    stderr: str

    @property
    def document(self):
        return json.loads(self.stdout)


@pytest.fixture
def influence(tmp_path):
    """Run ``influence`` in an empty working directory with ``site`` importable."""
    home = tmp_path / "home"
    home.mkdir()

    def run(*arguments: str, site: Path, **variables: str) -> Answer:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("INFLUENCE_", "OPENAI_"))}
        env = {**kept, "HOME": str(home), "PYTHONPATH": str(site), "COLUMNS": "200", **variables}
        command = [sys.executable, "-m", "influence_cli", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=home, check=False)
        return Answer(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def site(tmp_path):
    """Return a folder that distributions are installed into by ``install``."""
    folder = tmp_path / "site"
    folder.mkdir()
    return folder


@pytest.fixture
def install(site):
    """Put a module and the metadata of its distribution into ``site``, as pip would."""

    def put(distribution: str, code: str | None, *, entry: str | None = None, module: str | None = None) -> None:
        module = module or distribution.replace("-", "_")
        if code is not None:
            (site / f"{module}.py").write_text(textwrap.dedent(code))
        info = site / f"{distribution.replace('-', '_')}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[influence]\n{entry or distribution} = {module}\n")

    return put
