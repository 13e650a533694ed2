"""Shards: parts of one run that processes of their own make, each in a database of its own beside ``run.db``.

Conversation number i (from 0) of a run's sequence belongs to shard i % of + 1, so that every shard is balanced as the whole
is, and all of them together are the run that one process would have made.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

from influence_cli.errors import InfluenceError

T = TypeVar("T")
_WRITTEN = re.compile(r"(\d{1,6})/(\d{1,6})")


@dataclass(frozen=True)
class Shard:
    """Part ``number`` (from 1) of ``of``."""

    number: int
    of: int

    def __str__(self) -> str:
        """Return it as it is written: ``2/4``."""
        return f"{self.number}/{self.of}"

    @property
    def name(self) -> str:
        """What its files are called by: ``2of4``."""
        return f"{self.number}of{self.of}"

    def share(self, items: Iterable[T]) -> Iterator[T]:
        """Yield those of ``items`` that belong to the shard, in their order."""
        return islice(items, self.number - 1, None, self.of)

    def count(self, total: int) -> int:
        """Return how many of ``total`` belong to the shard."""
        return len(range(self.number - 1, total, self.of))

    def part(self, amount: int) -> int:
        """Return the shard's part of something that is divided evenly, at least 1."""
        return max(1, amount // self.of)


def parse_shard(text: str) -> Shard:
    """Return the shard that ``2/4`` names; InfluenceError for what names none."""
    match = _WRITTEN.fullmatch(text.strip())
    shard = Shard(int(match[1]), int(match[2])) if match else None
    if shard is None or not 1 <= shard.number <= shard.of:
        raise InfluenceError(f"--shard {text!r} is not NUMBER/OF.", hint="For instance 2/4: the second of four.")
    return shard


def all_shards(of: int) -> list[Shard]:
    """Return the shards of a run that is split into ``of``."""
    return [Shard(number, of) for number in range(1, of + 1)]
