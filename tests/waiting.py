"""Waiting for what a test needs to have happened, far longer than it takes anywhere."""

import asyncio
import time
from collections.abc import Callable

PATIENCE = 60.0
"""Seconds after which a test fails that waits."""


def wait_until(happens: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Return once ``happens()``; AssertionError after ``seconds``."""
    until = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.02)


async def until(happens: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Do as :func:`wait_until` while the event loop goes on."""
    end = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < end, "it did not happen in time"
        await asyncio.sleep(0.002)


def told(process, words):
    """Read what a process says until it says ``words``."""
    while not (said := process.stderr.readline()).startswith(words):
        assert said, process.communicate()
