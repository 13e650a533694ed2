"""Opening a run whose conversations are read, not made: what is not in its database is told."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from influence_cli.errors import InfluenceError
from influence_cli.store.merge import unmerged
from influence_cli.store.run_directory import RunDirectory, find_run, open_run


def run_to_read(name: str, told: Callable[[str], None]) -> RunDirectory:
    """Return the run called ``name``; InfluenceError if there is none. ``told`` hears of what only its shards hold."""
    directory = open_run(find_run(name))
    tell_unmerged(directory, told)
    return directory


def runs_to_read(names: Iterable[str], told: Callable[[str], None]) -> list[RunDirectory]:
    """Return the runs called ``names``, each once, as :func:`run_to_read` does."""
    return [run_to_read(str(path), told) for path in dict.fromkeys(map(find_run, names))]


def tell_unmerged(directory: RunDirectory, told: Callable[[str], None]) -> None:
    """Say how much only the run's shards hold, or that there is no knowing."""
    if not directory.database.is_file():
        return
    try:
        count = unmerged(directory)
    except InfluenceError as error:
        told(f"Whether shards of {directory.path} hold more than it does is not known: {error}")
        return
    if count:
        told(
            f"{count:,} conversations of {directory.path}, or scores of them, are in its shards alone and are left out:"
            f" influence runs merge {directory.path}"
        )
