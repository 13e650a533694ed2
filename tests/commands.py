"""The command line as a process of its own, and what a run holds by its own export."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson


def influence(*arguments: object, env: Mapping[str, str] | None = None) -> str:
    """Run ``influence`` to its end, which must be a good one; return its stdout."""
    command = [sys.executable, "-m", "influence_cli", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stderr
    return done.stdout


def said(run: Path) -> dict[tuple[str, str, int], Any]:
    """Return what was said and how it was rated, by conversation."""
    found = {}
    for line in influence("export", run, "--to", "jsonl", "--out", "-").splitlines():
        document = orjson.loads(line)
        key = document["scenario"], document["initial_state"], document["sample"]
        messages = sorted((m["turn"], m["speaker"], m["text"]) for m in document["messages"])
        found[key] = messages, document["judgements"], document["status"]
    return found
