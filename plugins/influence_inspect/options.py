"""What ``-o key=value`` can set."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from influence_cli.api import Frozen


class InspectOptions(Frozen):
    """Options of the backend ``inspect``."""

    base_url: str | None = Field(default=None, description="Address of the provider, where it is not the usual one.")
    logprobs: Literal["auto", "no"] = Field(
        default="auto", description="auto: read them where the provider gives them; no: count samples."
    )
    draws: int = Field(default=20, ge=1, description="Samples of a closed question where a request names no number.")
    max_retries: int = Field(default=5, ge=0, description="How often Inspect asks again where that may help.")
    max_connections: int | None = Field(default=None, ge=1, description="Most requests at once; None: Inspect's own.")
    model_args: dict[str, Any] = Field(default_factory=dict, description="Arguments of the provider's class.")


class InspectLogOptions(Frozen):
    """The export has no options: the name of the file says which of the two formats it is."""
