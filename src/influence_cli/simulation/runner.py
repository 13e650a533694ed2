"""Many conversations: as many at once as asked for, begun lazily, ended cleanly.

Invariant: at most ``concurrency`` conversations are in memory; a stop (signal, budget, all failing alike) begins no new
call, gives those in flight :data:`GRACE` seconds to be stored, and leaves every conversation resumable.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Sequence
from typing import Protocol

from influence_cli.environments.environment import Environment, Episode
from influence_cli.environments.sampling import count_episodes, episodes
from influence_cli.errors import InfluenceError
from influence_cli.schemas.configs import SimulationConfig
from influence_cli.schemas.records import (
    EpisodeKey,
    EpisodeProgress,
    EpisodeRecord,
    MessageRecord,
    TrajectoryEnd,
)
from influence_cli.simulation.calls import Journal, Run, Stopping
from influence_cli.simulation.conversation import Conversation
from influence_cli.simulation.tally import Tally

_log = logging.getLogger(__name__)

GRACE = 10.0
"""Seconds that calls in flight get to finish after a stop."""
_STOP_POLL = 0.05


class EpisodeJournal(Journal, Protocol):
    """What the runner needs of the store's writer besides the answers of one conversation."""

    def is_finished(self, key: EpisodeKey) -> bool:
        """Return whether the conversation ended in an earlier sitting."""
        ...

    def open_episode(self, record: EpisodeRecord, opening: Sequence[MessageRecord]) -> int:
        """Store the conversation's beginning if it is new; return its identifier."""
        ...

    def progress(self, episode_id: int) -> EpisodeProgress:
        """Return what is stored of the conversation."""
        ...

    def finish(self, episode_id: int, end: TrajectoryEnd) -> None:
        """Store how the conversation ended."""
        ...


class Runner:
    """A run in progress: :meth:`simulate` once; :meth:`stop` at any time, from the same event loop."""

    def __init__(
        self,
        run: Run,
        environments: Sequence[Environment],
        journal: EpisodeJournal,
        *,
        at_once: int | None = None,
        waiting: Iterator[Episode] | None = None,
        iteration: int = 0,
    ) -> None:
        """``at_once`` conversations are in progress; None: as many as the settings say.

        ``waiting``: which are had, in place of those that the settings name for ``iteration``.
        """
        self._run = run
        self._at_once = at_once or run.config.concurrency
        self._journal = journal
        own = episodes(environments, run.config, iteration=iteration)
        self._waiting: Iterator[Episode] = own if waiting is None else waiting
        self._error: BaseException | None = None

    async def simulate(self) -> Tally:
        """Have every conversation that is not finished; return the tally.

        Raises InfluenceError where the store cannot be written; what was stored stays.
        """
        workers = [asyncio.create_task(self._work()) for _ in range(min(self._at_once, self._run.tally.total))]
        stopper = asyncio.create_task(self._cut_off(workers))
        try:
            await asyncio.gather(*workers, return_exceptions=True)
        except asyncio.CancelledError:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
            raise
        finally:
            stopper.cancel()
            await asyncio.gather(stopper, return_exceptions=True)
        if self._error is not None:
            raise self._error
        return self._run.tally

    def stop(self) -> None:
        """Begin no further call; the run ends when what is in flight is stored, or after :data:`GRACE` seconds."""
        if self._run.tally.stop is None:
            self._run.tally.stop = "signal"

    async def _work(self) -> None:
        tally = self._run.tally
        try:
            for episode in self._waiting:
                if tally.stop is not None:
                    return
                if not self._journal.is_finished(episode.record.key):
                    await self._converse(episode)
        except (Stopping, asyncio.CancelledError):
            return
        except BaseException as error:  # noqa: BLE001 - a store that fails, or a bug: the run ends and raises it
            self._error = self._error or error
            tally.stop = tally.stop or "error"

    async def _converse(self, episode: Episode) -> None:
        tally = self._run.tally
        episode_id = self._journal.open_episode(episode.record, episode.opening())
        conversation = Conversation(self._run, episode, episode_id, self._journal.progress(episode_id))
        tally.active += 1
        try:
            end = await conversation.run()
            self._journal.finish(episode_id, end)
            tally.turns += end.turns
            tally.add_end(end, conversation.failed_role)
        finally:
            tally.active -= 1

    async def _cut_off(self, workers: Sequence[asyncio.Task[None]]) -> None:
        """After a stop, end what has not finished in time."""
        while self._run.tally.stop is None:  # noqa: ASYNC110 - the tally is set from many places, without a loop
            await asyncio.sleep(_STOP_POLL)
        self._run.gate.open()
        await asyncio.sleep(GRACE)
        left = [worker for worker in workers if not worker.done()]
        if left:
            _log.warning("%d conversations had calls in flight for more than %g s; they were cut off", len(left), GRACE)
        for worker in left:
            worker.cancel()


def start_tally(environments: Sequence[Environment], config: SimulationConfig) -> Tally:
    """Return the tally of a run that has not begun; InfluenceError if nothing fits what was asked for."""
    total = count_episodes(environments, config)
    if total <= 0:
        raise InfluenceError("There is nothing to simulate.")
    return Tally(total=total, budget=config.budget, stop_after_alike=config.stop_after_alike)
