"""A conversation that is over is freed at once, whatever became of it: nothing of it waits for the garbage collector."""

import gc
from collections import Counter

import pytest

from influence_cli.simulation.conversation import Conversation

LEAVES = "choices: [{role: transition, weights: {leave: 1, stay: 1}}, {weights: {'1': 1}}]"
FAILS = "failures: [{{role: {}, kind: timeout, share: 0.4}}]"
ROLES = ("agent", "user", "transition", "preference")


def conversations() -> int:
    return sum(type(each) is Conversation for each in gc.get_objects())  # isinstance would ask lazy modules, which warn


@pytest.mark.parametrize("text", [LEAVES, *map(FAILS.format, ROLES)], ids=["leaves", *ROLES])
@pytest.mark.parametrize("latency", [0.0, 0.004])
async def test_a_conversation_that_is_over_leaves_nothing_to_the_collector(
    make_runner, journal, script, uncollected, text, latency
):
    before = conversations()
    tally = await make_runner(model=script(text), latency=latency, samples=2, concurrency=16).simulate()
    assert conversations() == before
    ends = Counter(end.status for end in journal.ends.values())
    assert sum(ends.values()) == tally.total == 16
    assert tally.speculations_dropped if text == LEAVES else ends["failed"]
