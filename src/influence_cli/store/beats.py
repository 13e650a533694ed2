"""What a shard tells of itself while it works: its counters, in a small file that who watches it reads.

A database that is being written cannot be read from another machine; a file that is always replaced whole can.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from influence_cli.store.run_directory import RunDirectory

EVERY = 0.5
"""Seconds between two beats."""


def beat_file(shard: RunDirectory) -> Path:
    """Return where a shard tells its counters."""
    return log_file(shard).with_suffix(".json")


def log_file(shard: RunDirectory) -> Path:
    """Return where what a shard says is kept."""
    assert shard.shard is not None
    return shard.path / "logs" / f"shard-{shard.shard.name}.log"


def write_beat(file: Path, counters: Mapping[str, Any]) -> None:
    """Tell ``counters``, and who tells them."""
    part = file.with_name(f".{file.name}.{os.getpid()}")
    part.write_bytes(orjson.dumps({"process": os.getpid(), **counters}))
    part.replace(file)


def read_beat(file: Path) -> dict[str, Any]:
    """Return what was told last; empty where nothing was."""
    try:
        counters: dict[str, Any] = orjson.loads(file.read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return {}
    return counters
