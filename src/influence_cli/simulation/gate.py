"""Pausing a run: a gate that every call passes before it begins."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

POLL = 0.25
"""Seconds between two looks at whether the run is to pause."""


class Gate:
    """Open unless the run is paused; calls that are under way are not touched."""

    def __init__(self) -> None:
        self._shut: asyncio.Event | None = None

    @property
    def shut(self) -> bool:
        """Whether no call may begin."""
        return self._shut is not None

    def close(self) -> None:
        """Let no further call begin."""
        if self._shut is None:
            self._shut = asyncio.Event()

    def open(self) -> None:
        """Let calls begin; those that wait do."""
        if self._shut is not None:
            self._shut.set()
            self._shut = None

    async def passed(self) -> None:
        """Return once a call may begin."""
        while self._shut is not None:
            await self._shut.wait()


async def follow(gate: Gate, paused: Callable[[], bool], told: Callable[[bool], None]) -> None:
    """Shut and open ``gate`` as ``paused`` says, until cancelled; ``told`` hears each change. The gate is left open.

    ``paused`` must say no once the run stops, so that what waits at the gate can end.
    """
    try:
        while True:
            wanted = paused()
            if wanted != gate.shut:
                (gate.close if wanted else gate.open)()
                told(wanted)
            await asyncio.sleep(POLL)
    finally:
        gate.open()
