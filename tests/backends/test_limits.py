"""How much is asked of a backend at once, and how fast."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from influence_cli.backends.limits import Limiter, SystemClock
from influence_cli.errors import CallFailedError
from influence_cli.testing.clock import ManualClock, settle


def limiter(clock: ManualClock, **settings_: object) -> Limiter:
    return Limiter(**({"initial": 4, "maximum": 16, "clock": clock} | settings_))


async def admit(lim: Limiter, count: int) -> list[asyncio.Task[float]]:
    tasks = [asyncio.ensure_future(lim.acquire()) for _ in range(count)]
    await settle()
    return tasks


async def test_starts_at_the_stated_level():
    lim = limiter(ManualClock())
    tasks = await admit(lim, 10)
    assert sum(task.done() for task in tasks) == 4
    assert (lim.state.in_flight, lim.state.waiting) == (4, 6)
    lim.close()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_level_above_the_maximum_is_the_maximum():
    assert limiter(ManualClock(), initial=99).state.limit == 16


@pytest.mark.parametrize("wrong", [{"initial": 0}, {"maximum": 0}])
def test_no_concurrency_at_all_is_refused(wrong):
    with pytest.raises(ValueError, match="at least 1"):
        limiter(ManualClock(), **wrong)


async def test_admits_in_the_order_of_arrival():
    lim = limiter(ManualClock(), initial=1, maximum=1)
    order: list[int] = []

    async def call(number: int) -> None:
        await lim.acquire()
        order.append(number)
        lim.release()

    await asyncio.gather(*(call(number) for number in range(8)))
    assert order == list(range(8))


async def test_grows_while_answers_come_and_never_above_the_maximum():
    lim = limiter(ManualClock())
    for _ in range(100):
        for task in await admit(lim, lim.state.limit):
            lim.answered(task.result())
            lim.release()
    assert lim.state.limit == 16


async def test_does_not_grow_beyond_what_is_used():
    lim = limiter(ManualClock(), initial=8)
    for _ in range(100):
        lim.answered(await lim.acquire())
        lim.release()
    assert lim.state.limit == 8


async def test_one_burst_of_refusals_lowers_it_once():
    clock = ManualClock()
    lim = limiter(clock, initial=8)
    tasks = await admit(lim, 8)
    await clock.advance(1.0)
    for task in tasks:
        lim.refused(task.result())
        lim.release()
    assert (lim.state.limit, lim.state.falls) == (4, 1)


async def test_grows_slowly_after_a_refusal():
    clock = ManualClock()
    lim = limiter(clock, initial=8)
    tasks = await admit(lim, 8)
    await clock.advance(1.0)
    lim.refused(tasks[0].result())
    for _ in tasks:
        lim.release()
    await clock.advance(1.0)
    for task in await admit(lim, 4):
        lim.answered(task.result())
        lim.release()
    assert lim.state.limit in (4, 5)


async def test_never_falls_below_one():
    clock = ManualClock()
    lim = limiter(clock, initial=2)
    for _ in range(10):
        admitted = await lim.acquire()
        await clock.advance(1.0)
        lim.refused(admitted)
        lim.release()
    assert lim.state.limit == 1


async def test_slow_answers_lower_it():
    clock = ManualClock()
    lim = limiter(clock, initial=8, slow_after=10.0)
    tasks = await admit(lim, 8)
    await clock.advance(11.0)
    for task in tasks:
        lim.answered(task.result())
        lim.release()
    assert lim.state.limit == 6


async def test_retry_after_pauses_everybody():
    clock = ManualClock()
    lim = limiter(clock)
    lim.refused(await lim.acquire(), retry_after=5.0)
    lim.release()
    tasks = await admit(lim, 2)
    assert not any(task.done() for task in tasks)
    assert lim.state.paused_for == 5.0
    await clock.advance(4.9)
    assert not any(task.done() for task in tasks)
    await clock.advance(0.2)
    assert all(task.done() for task in tasks)


async def test_a_longer_pause_replaces_a_shorter_one():
    clock = ManualClock()
    lim = limiter(clock)
    first, second = await lim.acquire(), await lim.acquire()
    lim.refused(first, retry_after=2.0)
    (task,) = await admit(lim, 1)
    lim.refused(second, retry_after=6.0)
    lim.release()
    lim.release()
    await clock.advance(3.0)
    assert not task.done()
    await clock.advance(3.1)
    assert task.done()


async def test_no_pause_is_longer_than_granted():
    lim = limiter(ManualClock(), max_pause=60.0)
    lim.refused(await lim.acquire(), retry_after=86_400.0)
    assert lim.state.paused_for == lim.max_pause == 60.0


async def test_tokens_are_paced_and_corrected_by_what_was_used():
    clock = ManualClock()
    lim = limiter(clock, tokens_per_minute=600)
    await lim.acquire(100)
    task = asyncio.ensure_future(lim.acquire(100))
    await clock.advance(4.0)
    assert not task.done()
    lim.settle(100, 50)
    await clock.advance(1.1)
    assert task.done()


async def test_an_abandoned_wait_gives_its_place_back():
    lim = limiter(ManualClock(), initial=1, maximum=1)
    await lim.acquire()
    first, second = await admit(lim, 2)
    lim.release()
    first.cancel()  # admitted in this very moment, and never told
    await settle()
    assert second.done()
    lim.release()
    assert (lim.state.in_flight, lim.state.waiting) == (0, 0)


async def test_abandoned_waits_are_passed_over():
    lim = limiter(ManualClock(), initial=1, maximum=1)
    await lim.acquire()
    tasks = await admit(lim, 3)
    tasks[0].cancel()
    tasks[1].cancel()
    await settle()
    assert lim.state.waiting == 1
    lim.release()
    await settle()
    assert tasks[2].done()


async def test_closing_turns_away_who_waits():
    lim = limiter(ManualClock(), initial=1, maximum=1, requests_per_minute=1)
    await lim.acquire()
    lim.release()
    (task,) = await admit(lim, 1)
    lim.close()
    with pytest.raises(CallFailedError, match="closed"):
        await task


async def test_the_machines_clock_moves_on():
    clock = SystemClock()
    before = clock.now()
    await clock.sleep(0.001)
    assert clock.now() > before


@settings(max_examples=30, deadline=None)
@given(rate=st.integers(1, 600), waits=st.lists(st.floats(0.0, 40.0), min_size=1, max_size=12))
def test_no_minute_holds_more_admissions_than_allowed(rate, waits):
    async def run() -> list[float]:
        clock = ManualClock()
        lim = limiter(clock, initial=1000, maximum=1000, requests_per_minute=rate)
        times: list[float] = []

        async def call() -> None:
            times.append(await lim.acquire())

        tasks = []
        for wait in waits:
            tasks += [asyncio.ensure_future(call()) for _ in range(20)]
            await clock.advance(wait)
        lim.close()
        await asyncio.gather(*tasks, return_exceptions=True)
        return times

    times = asyncio.run(run())
    for start in times:
        assert sum(start <= other < start + 60.0 - 1e-6 for other in times) <= rate


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(["ask", "answer", "refuse", "cancel", "wait"]), max_size=80))
def test_whatever_happens_no_more_than_the_maximum_is_in_flight_and_nothing_is_lost(events):
    async def run() -> None:
        clock = ManualClock()
        lim = limiter(clock, initial=3, maximum=6)
        waiting: list[asyncio.Task[float]] = []
        inside: list[float] = []
        for event in events:
            if event == "ask":
                waiting.append(asyncio.ensure_future(lim.acquire()))
            elif event == "cancel" and waiting:
                waiting.pop(0).cancel()
            elif event == "wait":
                await clock.advance(1.0)
            elif inside:
                admitted = inside.pop()
                lim.answered(admitted) if event == "answer" else lim.refused(admitted, retry_after=0.5)
                lim.release()
            await settle()
            inside += [task.result() for task in waiting if task.done() and not task.cancelled()]
            waiting = [task for task in waiting if not task.done()]
            assert lim.state.in_flight == len(inside) <= 6
        for _ in range(len(inside)):
            lim.release()
        while waiting:
            await clock.advance(1.0)
            assert any(task.done() for task in waiting)
            for task in [task for task in waiting if task.done()]:
                waiting.remove(task)
                lim.release()
        assert lim.state.in_flight == 0

    asyncio.run(run())
