"""Asking again after failures that may pass."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from influence_cli.backends.retries import Retrier, RetryBudget, RetryPolicy
from influence_cli.errors import RETRYABLE, CallFailedError
from influence_cli.testing.clock import ManualClock

FAILURES = ["rate_limited", "server_error", "connection", "timeout", "malformed", "empty"]


class Flaky:
    """Fails as told, then answers."""

    def __init__(self, *kinds: str, retry_after: float | None = None) -> None:
        self.kinds = list(kinds)
        self.calls = 0
        self.retry_after = retry_after

    async def __call__(self) -> str:
        self.calls += 1
        if self.kinds:
            raise CallFailedError(self.kinds.pop(0), "No luck.", retry_after=self.retry_after)
        return "answer"


def retrier(**policy: float) -> Retrier:
    return Retrier(RetryPolicy(**({"base_delay": 0.0} | policy)), RetryBudget(), ManualClock())


def test_the_retryable_kinds_are_those_listed_here():
    assert frozenset(FAILURES) == RETRYABLE


@pytest.mark.parametrize("kind", FAILURES)
async def test_asks_again_after(kind):
    flaky = Flaky(kind)
    assert await retrier().call(flaky) == "answer"
    assert flaky.calls == 2


@pytest.mark.parametrize("kind", ["auth", "quota", "not_found", "context_overflow", "refused", "too_long"])
async def test_does_not_ask_again_after(kind):
    flaky = Flaky(kind)
    with pytest.raises(CallFailedError, match=r"^No luck\.$") as caught:
        await retrier().call(flaky)
    assert (caught.value.kind, caught.value.attempts, flaky.calls) == (kind, 1, 1)


async def test_gives_up_after_the_last_attempt_and_counts_them_all():
    with pytest.raises(CallFailedError, match="given up after 3 attempts") as caught:
        await retrier(max_attempts=3).call(Flaky(*["timeout"] * 9))
    assert (caught.value.kind, caught.value.attempts) == ("timeout", 3)


async def test_a_single_attempt_says_nothing_of_attempts():
    with pytest.raises(CallFailedError, match=r"^No luck\.$"):
        await retrier(max_attempts=1).call(Flaky("timeout"))


async def test_a_server_that_wants_too_long_a_wait_is_not_asked_again():
    flaky = Flaky("rate_limited", retry_after=3600.0)
    with pytest.raises(CallFailedError, match="wait of 3600 s"):
        await retrier(max_wait=300.0).call(flaky)
    assert flaky.calls == 1


async def test_other_errors_pass_through():
    async def broken() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await retrier().call(broken)


async def test_waits_between_attempts_as_the_policy_says():
    clock = ManualClock()
    policy = RetryPolicy(base_delay=2.0)
    task = asyncio.ensure_future(Retrier(policy, RetryBudget(), clock).call(Flaky("timeout", "timeout"), 42))
    await clock.advance(100.0)
    assert await task == "answer"
    assert clock.slept == [policy.delay(1, 42), policy.delay(2, 42)]


def test_no_retrier_needs_settings():
    assert Retrier().policy.max_attempts == 6


@given(st.integers(1, 2000), st.integers(0, 2**63 - 1), st.floats(0.0, 100.0), st.floats(0.0, 1000.0))
def test_every_wait_is_below_its_ceiling_and_repeatable(attempt, seed, base, most):
    policy = RetryPolicy(base_delay=base, max_delay=most)
    delay = policy.delay(attempt, seed)
    assert 0.0 <= delay <= min(most, base * 2.0 ** min(attempt - 1, 64))
    assert delay == policy.delay(attempt, seed)


def test_jitter_is_full():
    delays = [RetryPolicy(base_delay=1.0).delay(1, seed) for seed in range(4000)]
    assert abs(sum(delays) / 4000 - 0.5) < 0.03
    assert min(delays) < 0.01
    assert max(delays) > 0.99


@given(st.integers(1, 400), st.floats(0.0, 2.0), st.floats(0.0, 50.0))
def test_a_storm_cannot_multiply_the_load(calls, ratio, reserve):
    budget = RetryBudget(ratio=ratio, reserve=reserve)
    retries = 0
    for _ in range(calls):
        budget.pay_in()
        while budget.take():
            retries += 1
    assert retries <= ratio * calls + reserve


async def test_a_spent_budget_says_so():
    spent = Retrier(RetryPolicy(base_delay=0.0), RetryBudget(ratio=0.0, reserve=1.0), ManualClock())
    assert await spent.call(Flaky("timeout")) == "answer"
    assert spent.budget.left == 0.0
    with pytest.raises(CallFailedError, match="retries are suspended"):
        await spent.call(Flaky("timeout"))
