"""Time that passes only when a test says so."""

from __future__ import annotations

import asyncio
import heapq
import itertools

_ROUNDS = 50
"""Turns of the event loop after which what is ready has run."""


class ManualClock:
    """A clock for limiters and retries; :meth:`advance` lets time pass and wakes who waited for it."""

    def __init__(self) -> None:
        self._now = 0.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = itertools.count()
        self.slept: list[float] = []

    def now(self) -> float:
        """Return the seconds that have passed."""
        return self._now

    async def sleep(self, seconds: float) -> None:
        """Return once the test has let ``seconds`` pass; ``slept`` remembers them."""
        self.slept.append(seconds)
        if seconds <= 0.0:
            await asyncio.sleep(0)
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._now + seconds, next(self._order), future))
        await future

    async def advance(self, seconds: float) -> None:
        """Let ``seconds`` pass, stopping at every moment for which somebody waits."""
        await settle()
        end = self._now + seconds
        while self._sleepers and self._sleepers[0][0] <= end:
            at, _, future = heapq.heappop(self._sleepers)
            self._now = max(self._now, at)
            if not future.done():
                future.set_result(None)
            await settle()
        self._now = end
        await settle()


async def settle() -> None:
    """Let everything run that can run without time passing."""
    for _ in range(_ROUNDS):
        await asyncio.sleep(0)
