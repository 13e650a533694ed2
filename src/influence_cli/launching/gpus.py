"""Which GPUs this machine has, and who uses which."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Sequence
from pathlib import Path

from influence_cli.errors import InfluenceError

VISIBLE = "CUDA_VISIBLE_DEVICES"
_DEVICE = re.compile(r"nvidia(\d+)")


def visible_gpus(devices: Path = Path("/dev")) -> tuple[str, ...]:
    """Return the GPUs that this process may use: those of CUDA_VISIBLE_DEVICES, or all, by number."""
    named = os.environ.get(VISIBLE)
    if named is not None:
        return tuple(part.strip() for part in named.split(",") if part.strip() not in ("", "-1"))
    found = (_DEVICE.fullmatch(path.name) for path in devices.glob("nvidia*"))
    return tuple(str(number) for number in sorted(int(match[1]) for match in found if match))


class Room:
    """Places for processes, and the GPUs that they have; given out in the order in which they were asked for."""

    def __init__(self, places: int | None, gpus: Sequence[str]) -> None:
        self._places = places
        self._gpus = list(gpus)
        self._all = len(self._gpus)
        self._taken = 0
        self._turn = asyncio.Lock()
        self._freed = asyncio.Event()

    def check(self, gpus: int) -> None:
        """Raise InfluenceError if so many GPUs can never be had."""
        if gpus > self._all:
            has = f"{self._all} GPU{'' if self._all == 1 else 's'}" if self._all else "no GPU"
            raise InfluenceError(f"{gpus} GPUs are asked for, and this machine offers {has}.", hint="Ask for fewer.")

    async def take(self, gpus: int) -> tuple[str, ...]:
        """Wait for a place with ``gpus`` GPUs; return which they are."""
        async with self._turn:
            while len(self._gpus) < gpus or (self._places is not None and self._taken >= self._places):
                self._freed.clear()
                await self._freed.wait()
            self._taken += 1
            mine, self._gpus = self._gpus[:gpus], self._gpus[gpus:]
            return tuple(mine)

    def give_back(self, gpus: Sequence[str]) -> None:
        """Free a place and its GPUs."""
        self._taken -= 1
        self._gpus = [*gpus, *self._gpus]
        self._freed.set()
