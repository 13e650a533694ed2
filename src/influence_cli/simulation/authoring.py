"""Having a model write further initial states, several at a time, resumably.

Invariant: answers are taken in the order of their attempts, whatever order they come in, and the file is saved with each;
what a stop leaves is a valid file that a later call goes on with.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from influence_cli.environments.authoring import Author, Collection
from influence_cli.errors import CallFailedError, InfluenceError
from influence_cli.schemas.environment import InitialState
from influence_cli.schemas.requests import GenerateRequest, Sampling
from influence_cli.seeding import derive_seed
from influence_cli.simulation.models import RoleModel
from influence_cli.simulation.tally import FATAL_KINDS

MOST_ATTEMPTS = 10
"""Attempts for each state that is wanted, before giving up."""
_MOST_TOKENS = 500


@dataclass
class AuthoringTally:
    """What came of the attempts of one call."""

    attempts: int = 0
    accepted: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    tokens: int = 0
    stop: Literal["signal"] | None = None


async def write_states(
    author: Author,
    collection: Collection,
    model: RoleModel,
    *,
    count: int,
    seed: int,
    concurrency: int,
    tally: AuthoringTally,
    told: Callable[[AuthoringTally], None] = lambda _: None,
) -> None:
    """Bring ``collection`` to ``count`` states; InfluenceError if the model gives too few that may stay.

    A failed call counts as an attempt, under its kind; a refused key or an unknown model ends at once. Once ``tally``
    stops, nothing more is asked, and what is in flight is taken.
    """
    before = Counter(collection.provenance.get("rejected", {}))
    limit = collection.attempts + MOST_ATTEMPTS * max(0, count - len(collection.states))
    while tally.stop is None and len(collection.states) < count and collection.attempts < limit:
        first = collection.attempts
        batch = range(first, first + min(concurrency, limit - first))
        asked = [asyncio.ensure_future(_ask(author, model, seed, attempt, tally)) for attempt in batch]
        try:
            for answer in asked:
                said = await answer
                collection.provenance["attempts"] = collection.attempts + 1
                tally.attempts += 1
                _take(author, collection, tally, said, room=len(collection.states) < count)
                collection.provenance["rejected"] = dict(sorted((before + tally.rejected).items()))
                collection.save()
                told(tally)
        finally:
            for answer in asked:
                answer.cancel()
            await asyncio.gather(*asked, return_exceptions=True)
    if tally.stop is None and len(collection.states) < count:
        why = ", ".join(f"{n} x {reason}" for reason, n in tally.rejected.most_common(4))
        raise InfluenceError(
            f"Only {len(collection.states)} of {count} states could stay after {tally.attempts} attempts ({why}).",
            hint="Name a larger model, or ask for fewer; what is there is kept.",
        )


def _take(author: Author, collection: Collection, tally: AuthoringTally, answer: str, *, room: bool) -> None:
    found: InitialState | str = author.judge(answer) if not answer.startswith("!") else answer[1:]
    if isinstance(found, str):
        tally.rejected[found] += 1
    elif room:
        author.accept(found)
        collection.states.append(found)
        tally.accepted += 1


async def _ask(author: Author, model: RoleModel, seed: int, attempt: int, tally: AuthoringTally) -> str:
    """Return the model's answer; one that begins with ``!`` is the kind of a failure."""
    sampling = Sampling(temperature=1.0, max_tokens=_MOST_TOKENS)
    request = GenerateRequest(
        role="user",
        messages=author.prompt(attempt),
        sampling=model.sampling(sampling),
        seed=derive_seed(seed, "author", attempt),
        adapter=model.name.adapter,
        json_schema=author.schema,
    )
    try:
        generation = await model.backend.generate(request)
    except CallFailedError as error:
        if error.kind in FATAL_KINDS:
            raise InfluenceError(str(error)) from None
        return f"!{error.kind.replace('_', ' ')}"
    tally.tokens += generation.usage.prompt_tokens + generation.usage.completion_tokens
    return generation.text
