"""Asking a provider many closed questions at once, for later: cheaper, and hours away.

Concept: a batch is named by a token that the caller chose and stored before anything is sent, so that after a kill at any
moment what was uploaded or begun under it is found again, and nothing is submitted twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from influence_cli.errors import CallFailedError
from influence_cli.schemas.requests import ChoiceRequest, Distribution

BatchState = Literal["waiting", "done", "failed"]


@dataclass(frozen=True)
class BatchProgress:
    """How far a batch is; ``detail`` is the provider's own word for it, and why it failed."""

    state: BatchState
    total: int = 0
    answered: int = 0
    failed: int = 0
    detail: str = ""


BatchAnswer = Distribution | CallFailedError
"""What came of one request of a batch."""


@runtime_checkable
class BatchBackend(Protocol):
    """A backend whose provider takes batches; it is asked for by ``isinstance``.

    All raise ``CallFailedError`` or ``InfluenceError`` where the provider refuses or cannot be reached; each may be called
    again. A token has letters, digits and hyphens.
    """

    def batch_line(self, key: str, request: ChoiceRequest) -> bytes:
        """Return ``request`` as one line of a batch's file, answered under ``key``."""
        ...

    async def upload_batch(self, token: str, lines: Sequence[bytes]) -> str:
        """Return the provider's name of the file of ``lines``; the one uploaded before under ``token``, if there is one."""
        ...

    async def start_batch(self, token: str, file: str) -> str:
        """Return the provider's name of the batch over ``file``; the one begun before under ``token``, if there is one."""
        ...

    async def look_at_batch(self, batch: str) -> BatchProgress:
        """Return how far a batch is."""
        ...

    async def collect_batch(self, batch: str, choices: Mapping[str, Sequence[str]]) -> dict[str, BatchAnswer]:
        """Return the answers of a batch that is done, by key; a key that the provider left out is not in it."""
        ...
