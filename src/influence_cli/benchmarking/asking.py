"""Asking a model about many items: so many at once, every call counted, a failure of one nobody else's."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from influence_cli.backends.together import together
from influence_cli.environments.layout import answer_line
from influence_cli.errors import CallFailedError, InfluenceError
from influence_cli.schemas.messages import ChatMessage
from influence_cli.schemas.requests import ChoiceRequest, Distribution, GenerateRequest, Generation, Sampling, Usage
from influence_cli.seeding import derive_seed
from influence_cli.simulation.models import RoleModel

T = TypeVar("T")
R = TypeVar("R", Generation, Distribution)
_log = logging.getLogger(__name__)


@dataclass
class CallTally:
    """What the calls of one model took, and how they failed."""

    calls: int = 0
    cached: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float | None = 0.0
    failed: Counter[str] = field(default_factory=Counter)
    unusable: int = 0

    def add(self, usage: Usage, cost: float | None) -> None:
        """Count an answer; what came from the cache took nothing."""
        self.calls += 1
        if usage.cached:
            self.cached += 1
            return
        self.spend(usage, cost)

    def spend(self, usage: Usage, cost: float | None) -> None:
        """Count what an answer took, or a call that gave none."""
        self.prompt_tokens += usage.prompt_tokens
        self.completion_tokens += usage.completion_tokens
        self.cost = None if self.cost is None or cost is None else self.cost + cost

    def document(self) -> dict[str, Any]:
        """Return the tally as it stands in results."""
        return {**vars(self), "failed": dict(self.failed)}


@dataclass
class Asker:
    """One model under questions; ``seed`` is that of the whole benchmark."""

    model: RoleModel
    seed: int = 0
    draws: int = 20
    tally: CallTally = field(default_factory=CallTally)

    async def choose(self, text: str, choices: Sequence[str], *place: str | int) -> Distribution | None:
        """Return the probabilities of ``choices`` after ``text``; None where they cannot be had or are of no use."""
        request = ChoiceRequest(
            role="agent",
            messages=(ChatMessage(role="user", content=f"{text}\n{answer_line(tuple(choices))}"),),
            choices=tuple(choices),
            seed=derive_seed(self.seed, *place),
            adapter=self.model.name.adapter,
            draws=self.draws,
        )
        found = await self._answer(self.model.backend.choose(request))
        if found is not None and found.mass < self.model.minimum_mass:
            self.tally.unusable += 1
            return None
        return found

    async def generate(self, text: str, sampling: Sampling, *place: str | int) -> str | None:
        """Return what the model says to ``text``; None where it says nothing."""
        request = GenerateRequest(
            role="agent",
            messages=(ChatMessage(role="user", content=text),),
            sampling=self.model.sampling(sampling),
            seed=derive_seed(self.seed, *place),
            adapter=self.model.name.adapter,
        )
        found = await self._answer(self.model.backend.generate(request))
        if found is not None and not found.text.strip():
            self.tally.failed["empty"] += 1
            return None
        return None if found is None else found.text

    async def _answer(self, answer: Coroutine[Any, Any, R]) -> R | None:
        try:
            found = await answer
        except CallFailedError as error:
            self.tally.failed[error.kind] += 1
            if error.usage is not None:
                self.tally.spend(error.usage, self.model.cost(error.usage))
            return None
        except (InfluenceError, asyncio.CancelledError):
            raise
        except Exception:  # noqa: BLE001 - what a backend does wrong is counted, and in the log
            _log.exception("A backend failed")
            self.tally.failed["internal"] += 1
            return None
        self.tally.add(found.usage, self.model.cost(found.usage))
        return found


async def over_items(
    items: Iterable[T], work: Callable[[T], Awaitable[None]], at_once: int, told: Callable[[int], None] = lambda _: None
) -> None:
    """Do ``work`` for every item, ``at_once`` of them; ``told`` hears how many are done. What work raises ends it."""
    waiting = iter(items)
    done = 0

    async def worker() -> None:
        nonlocal done
        for item in waiting:
            await work(item)
            done += 1
            told(done)

    await together([worker() for _ in range(at_once)])
