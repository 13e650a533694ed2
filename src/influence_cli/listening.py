"""Who hears how work goes: made by whoever talks with a person; where nobody watches, warnings go to the log."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from influence_cli.credentials import without_secrets

if TYPE_CHECKING:
    from influence_cli.simulation.tally import Tally

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Scored:
    """How far the shards of a sitting of scoring are: scores asked for, and how many shards of all are at their end."""

    done: int
    ended: int
    shards: int


class Advance(Protocol):
    """Hears how far something is."""

    def __call__(self, step: str, share: float, detail: str = "", /) -> None:
        """Hear that ``step`` has come to ``share``, from 0 to 1; ``detail`` is for whoever sees it change."""
        ...


class Listener(Protocol):
    """Hears of a sitting; used from one event loop."""

    def say(self, text: str) -> None:
        """Hear what a person may want to know."""
        ...

    def warn(self, text: str) -> None:
        """Hear what a person has to know."""
        ...

    def progress(self) -> AbstractContextManager[Advance]:
        """Show how far the steps of the block are."""
        ...

    async def follow(self, tally: Tally, notes: Mapping[str, str]) -> None:
        """Show how far a simulation is, under headings and their texts, until cancelled."""
        ...

    async def count(self, look: Callable[[], Scored]) -> None:
        """Show how far scoring is, which ``look`` says, until cancelled."""
        ...

    def ended(self, tally: Tally) -> None:
        """Hear what a simulation came to."""
        ...


class Unwatched:
    """A :class:`Listener` where nobody watches: what a person has to know stands in the log, and nothing else anywhere."""

    def say(self, text: str) -> None:
        """Keep it."""

    def warn(self, text: str) -> None:
        """Log it; what seems to be a key is blotted out."""
        _log.warning("%s", without_secrets(text))

    @contextmanager
    def progress(self) -> Iterator[Advance]:
        """Show nothing."""
        yield _unseen

    async def follow(self, tally: Tally, notes: Mapping[str, str]) -> None:  # noqa: ARG002 - nobody sees it
        """Wait to be cancelled."""
        await asyncio.Event().wait()

    async def count(self, look: Callable[[], Scored]) -> None:  # noqa: ARG002 - nobody sees it
        """Wait to be cancelled."""
        await asyncio.Event().wait()

    def ended(self, tally: Tally) -> None:
        """Keep it."""


def _unseen(_step: str, _share: float, _detail: str = "", /) -> None: ...
