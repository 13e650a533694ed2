"""One sitting of writing initial states: a file begun or taken up, a model asked, what it writes kept with its provenance."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from influence_cli import __version__
from influence_cli.environments.authoring import Author, Collection, open_collection
from influence_cli.environments.environment import Environment
from influence_cli.errors import UnknownNameError
from influence_cli.listening import Listener
from influence_cli.plugins.registry import PluginRegistry
from influence_cli.resolution import find_environments
from influence_cli.scoring.running import ended
from influence_cli.simulation.authoring import AuthoringTally, write_states
from influence_cli.simulation.models import RoleModel
from influence_cli.sittings.loading import one_model
from influence_cli.sittings.simulate import IN_TIME, stopping
from influence_cli.sittings.stops import nothing_begun


@dataclass(frozen=True)
class StatesRequest:
    """What was asked for: ``count`` states in all, in the file ``out`` or beside the scenario."""

    environment: str
    scenario: str
    count: int
    seed: int = 0
    concurrency: int = 8
    out: Path | None = None
    folders: Sequence[Path] = ()
    model: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    base_url: str | None = None


@dataclass(frozen=True)
class Written:
    """What came of it: the file, which holds everything, and what this sitting added."""

    collection: Collection
    tally: AuthoringTally
    wanted: int

    @property
    def stopped(self) -> bool:
        """Whether a signal came before there were as many states as wanted."""
        return self.tally.stop is not None and len(self.collection.states) < self.wanted

    def document(self) -> dict[str, Any]:
        """Return the documented object ``influence.env.generate/1``."""
        tally = self.tally
        return {
            "schema": "influence.env.generate/1",
            "file": str(self.collection.path),
            "state": "stopped" if self.stopped else "done",
            "states": len(self.collection.states),
            "accepted": tally.accepted,
            "attempts": tally.attempts,
            "rejected": dict(tally.rejected),
            "tokens": tally.tokens,
        }


def generate(registry: PluginRegistry, request: StatesRequest, heard: Listener) -> Written:
    """Have a model write the states that are missing; return what came of it. InfluenceError for what the user can mend."""
    environment = find_environments(registry, [request.environment], request.folders)[0]
    if request.scenario not in environment.scenarios:
        raise UnknownNameError(f"scenario of {environment.name}", request.scenario, environment.scenarios)
    collection = open_collection(environment, request.scenario, request.out)
    with nothing_begun():
        model = one_model(registry, request.model, request.options, heard, request.base_url)
    _sign(collection, environment, str(model.name), request.seed)
    author = Author(environment, environment.scenarios[request.scenario], collection, request.seed)
    tally = AuthoringTally()
    asyncio.run(_write(author, collection, model, request, tally, heard))
    return Written(collection, tally, request.count)


def _sign(collection: Collection, environment: Environment, model: str, seed: int) -> None:
    """Note in the file when and by what it was written."""
    collection.provenance.setdefault("created", datetime.now(UTC).isoformat(timespec="seconds"))
    collection.provenance.update(
        {
            "written_by": f"influence env generate, version {__version__}",
            "models": list(dict.fromkeys([*collection.provenance.get("models", []), model])),
            "seed": seed,
            "environment_digest": environment.digest,
        }
    )


async def _write(
    author: Author,
    collection: Collection,
    model: RoleModel,
    request: StatesRequest,
    tally: AuthoringTally,
    heard: Listener,
) -> None:
    def stop() -> None:
        tally.stop = "signal"

    with heard.progress() as advance:
        writing = asyncio.ensure_future(
            write_states(
                author,
                collection,
                model,
                count=request.count,
                seed=request.seed,
                concurrency=request.concurrency,
                tally=tally,
                told=lambda _: advance("Writing initial states", len(collection.states) / request.count),
            )
        )
        with stopping(writing, tally, stop, IN_TIME, heard):
            try:
                await ended(writing, tally)
            finally:
                await model.backend.aclose()
