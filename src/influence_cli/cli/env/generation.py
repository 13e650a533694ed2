"""``influence env generate``: further initial states, written by a model."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from influence_cli import __version__
from influence_cli.cli import output
from influence_cli.cli.context import registry_of
from influence_cli.cli.env.options import Folders, Model, Name
from influence_cli.cli.listening import Talk
from influence_cli.cli.options import AnySeed, AsJson, Server, ServerOptions, backend_options

if TYPE_CHECKING:
    from influence_cli.environments.authoring import Author, Collection
    from influence_cli.simulation.authoring import AuthoringTally
    from influence_cli.simulation.models import RoleModel


def generate(
    ctx: typer.Context,
    name: Name,
    scenario: Annotated[str, typer.Option("--scenario", help="The scenario to write for.")],
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="How many the file shall hold in all.")] = 16,
    model: Model = None,
    base_url: Server = None,
    option: ServerOptions = None,
    seed: AnySeed = 0,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests at once.")] = 8,
    out: Annotated[Path | None, typer.Option("--out", help="The file; else beside the scenario.")] = None,
    environments_dir: Folders = None,
    json: AsJson = False,
) -> None:
    """Have a model write further initial states of a scenario; run it again to go on.

    They are kept in scenarios/SCENARIO.more.yaml with their provenance; near-duplicates and invalid ones are rejected.
    """
    from influence_cli.environments.authoring import Author, open_collection
    from influence_cli.errors import UnknownNameError
    from influence_cli.resolution import find_environments
    from influence_cli.sittings.loading import one_model

    registry = registry_of(ctx)
    environment = find_environments(registry, [name], environments_dir or [])[0]
    if scenario not in environment.scenarios:
        raise UnknownNameError(f"scenario of {environment.name}", scenario, environment.scenarios)
    collection = open_collection(environment, scenario, out)
    asked = one_model(registry, model, backend_options(option) or {}, Talk(), base_url)
    models = dict.fromkeys([*collection.provenance.get("models", []), str(asked.name)])
    collection.provenance.setdefault("created", datetime.now(UTC).isoformat(timespec="seconds"))
    collection.provenance.update(
        {
            "written_by": f"influence env generate, version {__version__}",
            "models": list(models),
            "seed": seed,
            "environment_digest": environment.digest,
        }
    )
    author = Author(environment, environment.scenarios[scenario], collection, seed)
    tally = _write(author, collection, asked, count, seed, concurrency)
    if json:
        rejected: dict[str, Any] = dict(tally.rejected)
        document = {"file": str(collection.path), "states": len(collection.states), "accepted": tally.accepted}
        more = {"attempts": tally.attempts, "rejected": rejected, "tokens": tally.tokens}
        output.emit_json({"schema": "influence.env.generate/1", **document, **more})
        return
    why = "; ".join(f"{n} x {reason}" for reason, n in tally.rejected.most_common()) or "none"
    output.emit_text(
        f"{collection.path}: {len(collection.states)} states, {tally.accepted} of them new from {tally.attempts} "
        f"answers. Rejected: {why}. Read them before you use them."
    )


def _write(
    author: Author, collection: Collection, model: RoleModel, count: int, seed: int, concurrency: int
) -> AuthoringTally:
    import asyncio

    from influence_cli.simulation.authoring import write_states

    async def work() -> AuthoringTally:
        with output.progress_bar() as advance:
            try:
                return await write_states(
                    author,
                    collection,
                    model,
                    count=count,
                    seed=seed,
                    concurrency=concurrency,
                    told=lambda _: advance("Writing initial states", len(collection.states) / count),
                )
            finally:
                await model.backend.aclose()

    return asyncio.run(work())
