"""SIGINT and SIGTERM while something works: heard by it, and given back.

Invariant: after a block of this module, signals do what they did before it, whoever called.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

STOPS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def hearing_stops(asked_to_stop: Callable[[], None]) -> Iterator[None]:
    """Let SIGINT and SIGTERM call ``asked_to_stop`` in the running event loop during the block.

    One block at a time, and only in the main thread: elsewhere nothing is heard.
    """
    loop = asyncio.get_running_loop()
    heard: list[signal.Signals] = []
    with _given_back():
        try:
            for number in STOPS:
                with suppress(NotImplementedError, RuntimeError, ValueError):
                    loop.add_signal_handler(number, asked_to_stop)
                    heard.append(number)
            yield
        finally:
            for number in heard:
                loop.remove_signal_handler(number)


@contextmanager
def interrupted_by_stops() -> Iterator[None]:
    """Let SIGINT and SIGTERM raise KeyboardInterrupt during the block, whatever they did before; in the main thread."""
    with _given_back() as own:
        for number in STOPS if own else ():
            signal.signal(number, signal.default_int_handler)
        yield


@contextmanager
def _given_back() -> Iterator[bool]:
    """Let signals after the block do what they did before it; yield whether this thread has them."""
    own = threading.current_thread() is threading.main_thread()
    before = {number: signal.getsignal(number) for number in STOPS} if own else {}
    try:
        yield own
    finally:
        for number, handler in before.items():
            if handler is not None:  # one that was not set from Python cannot be set from it
                signal.signal(number, handler)
