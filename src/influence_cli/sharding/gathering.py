"""Bringing together what shards have stored: at the end of each sitting, and where a sitting did not come to it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from influence_cli.launching.records import drop_records
from influence_cli.launching.signals import hearing_stops
from influence_cli.listening import Listener
from influence_cli.sharding.orphans import refuse_orphans
from influence_cli.sharding.splitting import Sharding
from influence_cli.store.merge import merge_shards, refuse_live_shards
from influence_cli.store.run_directory import RunDirectory, shard_files


def gather_shards(directory: RunDirectory) -> None:
    """Take what shards have stored whose own process did not come to merge it; InfluenceError if one is at work."""
    refuse_orphans(directory.path)
    if shard_files(directory):
        refuse_live_shards(directory)
        merge_shards(directory)


@asynccontextmanager
async def gathering(
    sharding: Sharding, folder: Path, gather: Callable[[], None], heard: Listener
) -> AsyncIterator[list[str]]:
    """Let the block mind shards, whose names it puts on the list as it starts them; then gather, end and forget them.

    Whatever fails, the rest is done: the first error is raised, the others are told. Jobs that could not be ended are
    remembered, for the next sitting to end.
    """
    names: list[str] = []
    errors: list[BaseException] = []
    try:
        yield names
    except BaseException as error:  # noqa: BLE001 - it is raised below
        errors.append(error)
    with hearing_stops(lambda: heard.say("What the shards have stored is brought together first.")):
        try:
            if names:
                gather()
        except Exception as error:  # noqa: BLE001 - it is raised or told below
            errors.append(error)
        try:
            await sharding.launcher.aclose()
            drop_records(folder, names)
        except Exception as error:  # noqa: BLE001 - it is raised or told below
            errors.append(error)
    for later in errors[1:]:
        heard.warn(f"Then: {later}")
    if errors:
        raise errors[0]
