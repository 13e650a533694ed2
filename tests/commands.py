"""The command line as a process of its own, and what a run holds by its own export."""

import sqlite3
import subprocess
import sys
from collections.abc import Mapping
from contextlib import closing
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


def conversations(database: Path) -> int:
    """Return how many conversations were begun in a run that may be written just now."""
    try:
        with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as db:
            return int(db.execute("SELECT count(*) FROM episode").fetchone()[0])
    except sqlite3.Error:
        return 0
