"""Loaded models, shared: backends that name the same model with the same settings get the same one.

Concept: the last backend to give a model back puts it to rest. As the user wants it, rest is the end (its memory is free
for training) or sleep (its weights wait in main memory). What still sleeps when the program ends is closed then.
"""

from __future__ import annotations

import atexit
import threading
from collections.abc import Callable, Hashable
from typing import Generic, Protocol, TypeVar


class Rests(Protocol):
    """A loaded model, or a server that has one."""

    @property
    def sleeps(self) -> bool:
        """Whether it sleeps when nobody uses it; otherwise it is closed."""
        ...

    def sleep(self) -> None:
        """Give the device's memory back, and keep what waking needs."""
        ...

    def wake(self) -> None:
        """Take the memory again and be ready."""
        ...

    def close(self) -> None:
        """End; again does nothing."""
        ...


R = TypeVar("R", bound=Rests)


class Shared(Generic[R]):
    """Models by name and settings, with the number of their users."""

    def __init__(self) -> None:
        self._held: dict[Hashable, R] = {}
        self._users: dict[Hashable, int] = {}
        self._lock = threading.Lock()
        self._leaving = False

    def acquire(self, key: Hashable, make: Callable[[], R]) -> R:
        """Return the model of ``key``, made or woken if need be; each call needs one :meth:`release`."""
        with self._lock:
            held = self._held.get(key)
            if held is None:
                held = self._held[key] = make()
            elif not self._users[key]:
                held.wake()
            self._users[key] = self._users.get(key, 0) + 1
            return held

    def release(self, key: Hashable) -> None:
        """Give a model back; after its last user it sleeps or ends."""
        with self._lock:
            self._users[key] -= 1
            if self._users[key]:
                return
            held = self._held[key]
            if held.sleeps:
                held.sleep()
                if not self._leaving:
                    self._leaving = True
                    atexit.register(self.close_all)
                return
            del self._held[key], self._users[key]
        held.close()

    def users(self, key: Hashable) -> int:
        """Return how many use the model of ``key``."""
        with self._lock:
            return self._users.get(key, 0)

    def close_all(self) -> None:
        """End every model, whoever uses it."""
        with self._lock:
            held, self._held = list(self._held.values()), {}
            self._users.clear()
        for each in held:
            each.close()
