"""What every backend can be asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from influence_cli.schemas.requests import (
    Capabilities,
    ChoiceRequest,
    Distribution,
    GenerateRequest,
    Generation,
    ModelInfo,
)


@runtime_checkable
class Backend(Protocol):
    """One loaded model, or one connection to a served one; shared by all roles that name it.

    Both calls may be in flight any number of times at once; the backend batches or limits them. They raise
    ``CallFailedError`` when there is no usable answer, after the backend's own retries. Cancelling the awaiting task
    abandons the request.
    """

    @property
    def capabilities(self) -> Capabilities:
        """What this backend can do."""
        ...

    async def generate(self, request: GenerateRequest) -> Generation:
        """Return the model's reply to ``request``."""
        ...

    async def choose(self, request: ChoiceRequest) -> Distribution:
        """Return the probability of each choice being the model's whole answer to ``request``."""
        ...

    async def aclose(self) -> None:
        """Release connections, threads and memory; calls in flight fail."""
        ...


BackendFactory = Callable[[str, Any], Backend]
"""Made from the model's name without backend prefix and adapter, and the component's validated options.

It raises ``InfluenceError`` for what the user can mend (a missing key, an unknown model) and needs no event loop.
"""


@runtime_checkable
class ModelCatalog(Protocol):
    """The models that a backend can name or fetch, for ``influence models``."""

    def models(self) -> Sequence[ModelInfo]:
        """Return the models known here, without loading any; InfluenceError where a server refuses."""
        ...

    def pull(self, name: str, progress: Callable[[str, float], None]) -> Path:
        """Fetch ``name`` and return where it lies; ``progress`` gets what is being done and how far, from 0 to 1."""
        ...
