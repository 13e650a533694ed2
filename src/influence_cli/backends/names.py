"""Model names: ``backend:model[@adapter]``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from influence_cli.errors import InfluenceError

_NAME = re.compile(r"(?P<backend>[a-z][a-z0-9_-]*):(?P<model>[^@\s]+)(?:@(?P<adapter>\S+))?")


@dataclass(frozen=True)
class ModelName:
    """Which backend, which of its models, and which LoRA weights on top."""

    backend: str
    model: str
    adapter: str | None = None

    def __str__(self) -> str:
        """Return the name as a user writes it."""
        return f"{self.base}@{self.adapter}" if self.adapter else self.base

    @property
    def base(self) -> str:
        """The name without the adapter: what prices and loaded copies go by."""
        return f"{self.backend}:{self.model}"


def parse_model_name(text: str) -> ModelName:
    """Return the parts of ``text``; InfluenceError if it is not ``backend:model[@adapter]``."""
    match = _NAME.fullmatch(text.strip())
    if match is None:
        hint = "Write BACKEND:MODEL or BACKEND:MODEL@ADAPTER, for instance openai:gpt-4o-mini or transformers:smollm2."
        raise InfluenceError(f"{text!r} is not a model name.", hint=hint)
    return ModelName(match["backend"], match["model"], match["adapter"])
