"""Whoever hears signals for a while gives them back."""

import asyncio
import os
import signal
import threading

import pytest
import uvloop
from tests.waiting import until

from influence_cli.launching.signals import STOPS, hearing_stops, interrupted_by_stops


@pytest.fixture
def mine():
    """Set handlers that nobody may lose, and return them."""

    def handler(number, frame):
        raise AssertionError("it was heard by the one before")

    before = {number: signal.signal(number, handler) for number in STOPS}
    yield handler
    for number, found in before.items():
        signal.signal(number, found)


def handlers():
    return [signal.getsignal(number) for number in STOPS]


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_a_loop_hears_them_in_the_block_and_afterwards_who_heard_them_before(mine, run):
    heard = []

    async def work():
        for round_ in (1, 2):
            with hearing_stops(lambda: heard.append(1)):
                for number in STOPS:
                    os.kill(os.getpid(), number)
                    await until(lambda: len(heard) == 2 * (round_ - 1) + STOPS.index(number) + 1)  # noqa: B023
            assert handlers() == [mine, mine]

    run(work())
    assert len(heard) == 4
    assert handlers() == [mine, mine]


def test_they_are_given_back_by_a_block_that_fails(mine):
    async def work():
        with hearing_stops(lambda: None):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        asyncio.run(work())
    assert handlers() == [mine, mine]


@pytest.mark.parametrize("number", STOPS)
def test_they_interrupt_what_has_no_loop_and_nothing_later(mine, number):
    @interrupted_by_stops()
    def work():
        os.kill(os.getpid(), number)
        threading.Event().wait(60)

    with pytest.raises(KeyboardInterrupt):
        work()
    assert handlers() == [mine, mine]


def test_in_another_thread_nothing_is_heard_and_nothing_changed(mine):
    async def work():
        with hearing_stops(lambda: None):
            return handlers()

    found = []
    with interrupted_by_stops():
        thread = threading.Thread(target=lambda: found.append(asyncio.run(work())))
        thread.start()
        thread.join()
        assert found == [handlers()]
    assert handlers() == [mine, mine]
