"""SIGINT and SIGTERM while an event loop works: heard by it, and given back."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

STOPS = (signal.SIGINT, signal.SIGTERM)


def on_stop_signals(asked_to_stop: Callable[[], None]) -> None:
    """Let SIGINT and SIGTERM call ``asked_to_stop`` in the running event loop; only the main thread's hears them."""
    loop = asyncio.get_running_loop()
    for number in STOPS:
        with suppress(NotImplementedError, RuntimeError, ValueError):
            loop.add_signal_handler(number, asked_to_stop)


@contextmanager
def signals_given_back() -> Iterator[None]:
    """Let signals after the block do what they did before it: an event loop that ends leaves SIGTERM to end the process."""
    own = threading.current_thread() is threading.main_thread()
    before = {number: signal.getsignal(number) for number in STOPS} if own else {}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:
                signal.signal(number, handler)
