"""A paused run begins no call, and goes on where it was."""

import asyncio

from tests.waiting import until

from influence_cli.simulation import gate as module
from influence_cli.simulation.gate import Gate, follow


async def test_what_waits_at_the_gate_goes_on_when_it_opens():
    gate = Gate()
    await gate.passed()
    gate.close()
    gate.close()
    waiting = asyncio.create_task(gate.passed())
    await asyncio.sleep(0.01)
    assert gate.shut
    assert not waiting.done()
    gate.open()
    gate.open()
    await asyncio.wait_for(waiting, 60)


async def test_the_gate_follows_what_is_asked_and_is_left_open(monkeypatch):
    monkeypatch.setattr(module, "POLL", 0.005)
    gate, wanted, told = Gate(), [True], []
    following = asyncio.create_task(follow(gate, lambda: wanted[0], told.append))
    await until(lambda: gate.shut)
    wanted[0] = False
    await until(lambda: not gate.shut)
    wanted[0] = True
    await until(lambda: gate.shut)
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    assert not gate.shut
    assert told == [True, False, True]
