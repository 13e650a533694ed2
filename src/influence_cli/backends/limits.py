"""How much may be asked of one backend at once, and how fast: learnt from its answers, within stated limits.

A :class:`Limiter` admits calls in the order they came. The level of concurrency starts where it is told to, grows while
answers come well and it is used (doubling each round before the first sign of overload, by about one a round after it),
and falls by a factor when the server refuses (429) or answers too slowly; requests sent before the last fall say
nothing new and do not lower it again. Rates are paced: admissions are spread evenly, so that no minute holds more than
allowed.

Invariants: never more in flight than ``maximum``; in any 60 seconds at most ``requests_per_minute`` admissions; no
admission before the end of a pause that the server asked for; all time is read from the clock that was given.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass
from typing import Protocol

from influence_cli.errors import CallFailedError

REFUSED_FACTOR = 0.5
"""What a refusal leaves of the concurrency."""
SLOW_FACTOR = 0.8
"""What answers slower than the target leave of it."""
_SMOOTHING = 0.1
_MINUTE = 60.0


class Clock(Protocol):
    """Time in seconds from an arbitrary origin, and waiting for it to pass."""

    def now(self) -> float:
        """Return the current time; it never goes back."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return once ``seconds`` have passed."""
        ...


class SystemClock:
    """The machine's monotonic clock."""

    def now(self) -> float:
        """Return seconds of the machine's monotonic clock."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Return once ``seconds`` have passed."""
        await asyncio.sleep(seconds)


@dataclass(frozen=True)
class LimiterState:
    """What a limiter does at one moment, for displays and tests."""

    limit: int
    in_flight: int
    waiting: int
    paused_for: float
    falls: int


class Limiter:
    """Admission to one backend; belongs to one event loop at a time.

    ``initial`` and ``maximum`` count calls in flight; ``slow_after`` is the smoothed latency in seconds above which the
    server counts as overloaded (None: latency is not looked at); ``max_pause`` bounds what one Retry-After may ask for.
    """

    def __init__(
        self,
        *,
        initial: int,
        maximum: int,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        slow_after: float | None = None,
        max_pause: float = 300.0,
        clock: Clock | None = None,
    ) -> None:
        if initial < 1 or maximum < 1:
            raise ValueError("concurrency must be at least 1")
        self._clock: Clock = clock or SystemClock()
        self._maximum = float(maximum)
        self._level = float(min(initial, maximum))
        self._request_gap = _MINUTE / requests_per_minute if requests_per_minute else 0.0
        self._token_gap = _MINUTE / tokens_per_minute if tokens_per_minute else 0.0
        self._slow_after = slow_after
        self._max_pause = max_pause
        self._paced = bool(self._request_gap or self._token_gap)
        self._next_request = self._next_token = self._paused_until = self._last_fall = float("-inf")
        self._falls = 0
        self._smoothed: float | None = None
        self._in_flight = 0
        self._waiters: deque[tuple[asyncio.Future[None], int]] = deque()
        self._timer: asyncio.Task[None] | None = None
        self._timer_at = 0.0

    @property
    def state(self) -> LimiterState:
        """What it does now."""
        paused = max(0.0, self._paused_until - self._clock.now())
        waiting = sum(not future.done() for future, _ in self._waiters)
        return LimiterState(int(self._level), self._in_flight, waiting, paused, self._falls)

    @property
    def max_pause(self) -> float:
        """The longest pause in seconds that a server is granted."""
        return self._max_pause

    async def acquire(self, tokens: int = 0) -> float:
        """Wait for admission and return its time; ``tokens`` is what the call is expected to use.

        Every admission must be given back with :meth:`release`.
        """
        now = self._clock.now()
        if not self._waiters and self._open_at(now) <= now:
            self._admit(now, tokens)
            return now
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append((future, tokens))
        self._pump()
        try:
            await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                self._in_flight -= 1
            self._pump()
            raise
        return self._clock.now()

    def release(self) -> None:
        """Give an admission back, whatever became of the call."""
        self._in_flight -= 1
        if self._waiters:
            self._pump()

    def settle(self, expected: int, used: int) -> None:
        """Correct the token rate by what a call really used."""
        if self._token_gap and used != expected:
            self._next_token += (used - expected) * self._token_gap
            if self._waiters:
                self._pump()

    def answered(self, admitted: float) -> None:
        """Learn from an answer to the call that was admitted at ``admitted``."""
        now = self._clock.now()
        latency = now - admitted
        previous = self._smoothed
        self._smoothed = latency if previous is None else previous + _SMOOTHING * (latency - previous)
        if self._slow_after is not None and self._smoothed > self._slow_after:
            self._fall(SLOW_FACTOR, admitted, now)
        elif self._level < self._maximum and self._in_flight * 2 >= self._level:
            step = 1.0 / self._level if self._falls else 1.0
            self._level = min(self._maximum, self._level + step)
            if self._waiters:
                self._pump()

    def refused(self, admitted: float, retry_after: float | None = None) -> None:
        """Learn from a refusal or a time-out; ``retry_after`` seconds, at most ``max_pause``, nobody is admitted."""
        now = self._clock.now()
        self._fall(REFUSED_FACTOR, admitted, now)
        if retry_after is not None and retry_after > 0.0:
            self._paused_until = max(self._paused_until, now + min(retry_after, self._max_pause))

    def close(self) -> None:
        """Stop the timer and turn away whoever still waits."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._waiters:
            future, _ = self._waiters.popleft()
            if not future.done():
                future.set_exception(CallFailedError("connection", "The backend was closed.", attempts=0))

    def _fall(self, factor: float, admitted: float, now: float) -> None:
        if admitted <= self._last_fall:
            return
        self._last_fall = now
        self._falls += 1
        self._smoothed = None
        self._level = max(1.0, self._level * factor)

    def _open_at(self, now: float) -> float:
        """Return when the next call may be admitted: ``now``, later, or never until a release."""
        if self._in_flight >= int(self._level):
            return float("inf")
        if self._paced:
            return max(now, self._paused_until, self._next_request, self._next_token)
        return max(now, self._paused_until)

    def _admit(self, now: float, tokens: int) -> None:
        self._in_flight += 1
        if self._paced:
            self._next_request = max(now, self._next_request) + self._request_gap
            self._next_token = max(now, self._next_token) + tokens * self._token_gap

    def _pump(self) -> None:
        """Admit whoever may go; see to being called again when the first of the rest may."""
        waiters = self._waiters
        while waiters:
            future, tokens = waiters[0]
            if future.done():
                waiters.popleft()
                continue
            now = self._clock.now()
            at = self._open_at(now)
            if at > now:
                self._wake_at(at)
                return
            waiters.popleft()
            self._admit(now, tokens)
            future.set_result(None)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wake_at(self, at: float) -> None:
        if at == float("inf"):
            return  # a release will call
        if self._timer is not None and not self._timer.done():
            if self._timer_at <= at:
                return  # it will look again
            self._timer.cancel()
        self._timer_at = at
        self._timer = asyncio.get_running_loop().create_task(self._sleep_until(at))

    async def _sleep_until(self, at: float) -> None:
        while (left := at - self._clock.now()) > 0.0:
            await self._clock.sleep(left)
        self._timer = None
        self._pump()
