"""Asking again after a failure that may pass, without making an outage worse.

Waits grow exponentially with full jitter: the n-th is uniform between 0 and ``min(max_delay, base_delay * 2**(n-1))``
(M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015), drawn from the call's own seed. A budget
shared by all calls of a backend pays for the retries. A server that goes away for a while (a restart, a broken line) is
waited for: what could not be sent at all is no attempt, and costs the budget nothing.

Invariant: of n calls that use one budget, at most ``ratio * n + reserve`` requests that reach the server are retries,
whatever it does.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from influence_cli.backends.limits import Clock, SystemClock
from influence_cli.errors import CallFailedError
from influence_cli.seeding import unit_draw

T = TypeVar("T")

_AWAY_DOUBLINGS = 5
"""Waits for a server that is away grow to 16 times the first: it is noticed soon when it is back."""


class RetryBudget:
    """What may still be asked again: every call pays ``ratio`` in, a retry takes 1 out; at most ``reserve``."""

    def __init__(self, *, ratio: float = 0.5, reserve: float = 100.0) -> None:
        self._ratio = ratio
        self._reserve = reserve
        self._left = reserve

    @property
    def left(self) -> float:
        """Retries that could be made now."""
        return self._left

    def pay_in(self) -> None:
        """Account for a new call."""
        self._left = min(self._reserve, self._left + self._ratio)

    def take(self) -> bool:
        """Return whether a retry may be made, and account for it if so."""
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True


@dataclass(frozen=True)
class RetryPolicy:
    """How often and after how long a call is asked again; seconds.

    A server that asks to wait for longer than ``max_wait`` is not asked again; one that is away is waited for
    ``outage`` long.
    """

    max_attempts: int = 6
    base_delay: float = 0.5
    max_delay: float = 30.0
    max_wait: float = 300.0
    outage: float = 0.0

    def delay(self, attempt: int, *names: str | int) -> float:
        """Return the seconds to wait after the failure of ``attempt`` (from 1), determined by ``names``."""
        ceiling = min(self.max_delay, self.base_delay * 2.0 ** min(attempt - 1, 64))
        return ceiling * unit_draw("backoff", attempt, *names)


class Retrier:
    """Repeats calls by a policy, within one budget."""

    def __init__(
        self, policy: RetryPolicy | None = None, budget: RetryBudget | None = None, clock: Clock | None = None
    ) -> None:
        self.policy = policy or RetryPolicy()
        self.budget = budget or RetryBudget()
        self._clock: Clock = clock or SystemClock()

    async def call(self, attempt: Callable[[], Awaitable[T]], *names: str | int) -> T:
        """Return what ``attempt()`` returns, called again after retryable failures; ``names`` determine the waits.

        Raises the last ``CallFailedError`` with the requests of all attempts counted.
        """
        self.budget.pay_in()
        sent = 0
        tried = 0
        waited = 0
        gone: float | None = None
        while True:
            try:
                return await attempt()
            except CallFailedError as error:
                sent += error.attempts
                now = self._clock.now()
                gone = (now if gone is None else gone) if error.away else None
                if gone is not None and now - gone < self.policy.outage:
                    waited += 1
                    await self._clock.sleep(self.policy.delay(min(waited, _AWAY_DOUBLINGS), "away", waited, *names))
                    continue
                tried += 1
                stop = self._reason_to_stop(error, tried)
                if stop is not None:
                    message = f"{error}{stop}"
                    raise CallFailedError(error.kind, message, attempts=sent, retry_after=error.retry_after) from error
            await self._clock.sleep(self.policy.delay(tried, *names))

    def _reason_to_stop(self, error: CallFailedError, tried: int) -> str | None:
        """Return why there is no other attempt, as the end of a sentence that may be empty; None: go on."""
        if not error.retryable:
            return ""
        if error.retry_after is not None and error.retry_after > self.policy.max_wait:
            return f" (not asked again: the server wants a wait of {error.retry_after:.0f} s)"
        if tried >= self.policy.max_attempts:
            return f" (given up after {tried} attempts)" if tried > 1 else ""
        if not self.budget.take():
            return " (not asked again: so many calls fail that retries are suspended)"
        return None
