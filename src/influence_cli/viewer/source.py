"""A run as the viewer reads it: on threads of its own, so that no query ever holds up the screen.

Two lanes, each a thread with its own read-only connection: ``quick`` for what is in sight (rows, one conversation, which
conversations a query finds), ``slow`` for what adds up over a run (facets, charts). A third thread keeps the full-text
index up to date.
"""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from influence_cli.errors import InfluenceError
from influence_cli.store.reader import RunReader
from influence_cli.store.run_directory import RunDirectory, open_run
from influence_cli.store.search import INDEX
from influence_cli.store.trajectory_table import TrajectoryTable
from influence_cli.store.word_index import gather, open_words, take_in

T = TypeVar("T")


class Lane:
    """One thread and its connection."""

    def __init__(self, directory: RunDirectory, name: str) -> None:
        self._directory = directory
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"viewer-{name}")
        self._table: TrajectoryTable | None = None

    async def ask(self, question: Callable[[TrajectoryTable], T]) -> T:
        """Return what ``question`` finds in the run; InfluenceError where the database cannot say."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._asked, question)

    def _asked(self, question: Callable[[TrajectoryTable], T]) -> T:
        if self._table is None:
            self._table = TrajectoryTable(RunReader(self._directory))
        return question(self._table)

    def close(self) -> None:
        """End the thread once the query it is in has been aborted."""
        if self._table is not None:
            with suppress(sqlite3.ProgrammingError):
                self._table.run.interrupt()
        self._thread.submit(self._closed)
        self._thread.shutdown(wait=False, cancel_futures=False)

    def _closed(self) -> None:
        if self._table is not None:
            self._table.run.close()


class RunSource:
    """A run opened for looking at."""

    def __init__(self, path: Path) -> None:
        self.directory = open_run(path)
        self.quick = Lane(self.directory, "quick")
        self.slow = Lane(self.directory, "slow")
        self._indexing = ThreadPoolExecutor(1, thread_name_prefix="viewer-index")
        self._spare: tempfile.TemporaryDirectory[str] | None = None
        self._closing = False
        self.searchable = False

    @property
    def path(self) -> Path:
        """The run's directory."""
        return self.directory.path

    @property
    def name(self) -> str:
        """What the run is called."""
        return self.path.resolve().name

    async def index(self, told: Callable[[float], None]) -> None:
        """Bring the full-text index up to date; ``told`` hears the share that is in, on the event loop."""
        loop = asyncio.get_running_loop()

        def tell(share: float) -> None:
            with suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(told, share)

        place = await loop.run_in_executor(self._indexing, self._take_in, tell)
        if not self.searchable and not self._closing:
            await self.quick.ask(lambda table: table.attach(place))
            await self.slow.ask(lambda table: table.attach(place))
            self.searchable = True

    def _take_in(self, tell: Callable[[float], None]) -> Path:
        place = self._place()
        index = open_words(place, str(place))
        try:
            with RunReader(self.directory) as run:
                if not self.searchable:
                    gather(index)
                for share in take_in(index, run):
                    tell(share)
                    if self._closing:
                        raise InfluenceError("The viewer is closing.")
        finally:
            index.close()
        return place

    def _place(self) -> Path:
        """Return where the index lies: beside the run, or in a folder of its own where that cannot be written."""
        if self._spare is None:
            place = self.path / INDEX
            try:
                open_words(place, str(place)).close()
            except InfluenceError:
                self._spare = tempfile.TemporaryDirectory(prefix="influence-view-", ignore_cleanup_errors=True)
            else:
                return place
        return Path(self._spare.name) / INDEX

    def close(self) -> None:
        """Close connections and threads; a query that is under way is aborted."""
        self._closing = True
        self.quick.close()
        self.slow.close()
        self._indexing.shutdown(wait=False, cancel_futures=True)
        if self._spare is not None:
            self._spare.cleanup()
