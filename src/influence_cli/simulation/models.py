"""Which model speaks for which role."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from influence_cli.backends.names import ModelName
from influence_cli.backends.protocol import Backend
from influence_cli.schemas.configs import Price, SamplingOverrides
from influence_cli.schemas.messages import Role
from influence_cli.schemas.requests import Sampling, Usage

JUDGES: tuple[Role, ...] = ("preference", "transition", "veto", "judge")
"""The roles that answer by a distribution over choices."""
DEFAULT_MINIMUM_MASS = 0.5
"""Least probability on a judge's choices for its distribution to count, unless a run says otherwise."""
EMBEDDED_MINIMUM_MASS = 0.001
"""The same for the embedded default: a model of 135 million parameters seldom answers with a bare choice; what it would
choose is exact all the same."""
EMBEDDED_NOTE = (
    "smollm2 is too small to judge in earnest: its judgements count from 0.1 % of probability on the choices. "
    "Name a larger model, or set judges.minimum_mass."
)


@dataclass(frozen=True)
class RoleModel:
    """The backend that answers for a role; roles that name the same base model share it."""

    name: ModelName
    backend: Backend
    overrides: SamplingOverrides = field(default_factory=SamplingOverrides)
    price: Price | None = None
    minimum_mass: float = DEFAULT_MINIMUM_MASS
    free: bool = False
    """Whether its answers cost nothing, unless a price is given."""

    def sampling(self, default: Sampling) -> Sampling:
        """Return the environment's sampling with the run's settings over it."""
        changes = self.overrides.model_dump(exclude_none=True)
        return default.model_copy(update=changes) if changes else default

    @property
    def unpriced(self) -> bool:
        """Whether it may cost money, and there is no knowing how much."""
        return self.price is None and not self.free

    def cost(self, usage: Usage) -> float | None:
        """Return US dollars for ``usage``; 0 for a cached answer or a free model, None where no price is known."""
        if self.price is None:
            return 0.0 if self.free else None
        if usage.cached:
            return 0.0
        cached_price = self.price.prompt if self.price.cached is None else self.price.cached
        full = usage.prompt_tokens - usage.cached_tokens
        total = full * self.price.prompt + usage.cached_tokens * cached_price
        return (total + usage.completion_tokens * self.price.completion) / 1e6


def backends_of(models: Iterable[RoleModel]) -> list[Backend]:
    """Return the backends of ``models``, each once."""
    return list({id(model.backend): model.backend for model in models}.values())


def unpriced(models: Iterable[RoleModel]) -> tuple[str, ...]:
    """Return the names of ``models`` that may cost money and have no price, each once."""
    return tuple(dict.fromkeys(model.name.base for model in models if model.unpriced))
