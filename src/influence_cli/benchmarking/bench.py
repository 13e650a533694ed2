"""What benchmarks have in common: models with an answer cache, progress, results on disk.

Invariant: every answer is kept in the benchmark's folder before it is counted, so that the same command after a stop asks
only what is missing.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from influence_cli import __version__
from influence_cli.listening import Listener
from influence_cli.plugins.registry import PluginRegistry
from influence_cli.resolution import close_models, default_model, role_models
from influence_cli.schemas.configs import RoleConfig, SimulationConfig
from influence_cli.schemas.messages import Role
from influence_cli.simulation.models import EMBEDDED_MINIMUM_MASS, EMBEDDED_NOTE, RoleModel
from influence_cli.store.connection import file_error
from influence_cli.store.exporters import whole_file

T = TypeVar("T")
FOLDER = Path("bench")
RESULTS = "bench.json"


@dataclass(frozen=True)
class Bench:
    """A benchmark that is about to begin: its name, its folder, and who is asked."""

    name: str
    folder: Path
    models: dict[Role, RoleModel]

    @property
    def tested(self) -> RoleModel:
        """The model that is tested."""
        return self.models["agent"]


def prepare(
    registry: PluginRegistry,
    name: str,
    model: str | None,
    *,
    judge: str | None = None,
    roles: Sequence[Role] = ("agent",),
    options: Mapping[str, Any],
    base_url: str | None,
    out: Path | None,
    heard: Listener,
) -> Bench:
    """Return the benchmark with its models loaded; InfluenceError for what the user can mend."""
    named, note = (model, "") if model else default_model()
    if note:
        heard.say(note)
    folder = folder_of(name, named, out)
    given = {**options, **({"base_url": base_url} if base_url else {})}
    config = SimulationConfig(
        default=RoleConfig(model=named, options=given),
        roles={"judge": RoleConfig(model=judge)} if judge else {},
        cache=str(folder),
    )
    models = role_models(registry, config, roles=roles)
    if any(each.minimum_mass == EMBEDDED_MINIMUM_MASS for each in models.values()):
        heard.say(EMBEDDED_NOTE)
    return Bench(name, folder, models)


def folder_of(name: str, model: str | None, out: Path | None) -> Path:
    """Return the folder of a benchmark: the same for the same benchmark and model, so that it is taken up."""
    named = model or default_model()[0]
    return out or FOLDER / f"{name}-{re.sub(r'[^a-z0-9]+', '-', named.lower()).strip('-')[-80:]}"


def run(
    bench: Bench, calls: int, work: Callable[[Callable[[int], None]], Coroutine[Any, Any, T]], heard: Listener
) -> T:
    """Return what ``work`` comes to, its progress shown; models are closed in any case."""

    async def whole(told: Callable[[int], None]) -> T:
        try:
            return await work(told)
        finally:
            await close_models(bench.models)

    with heard.progress() as advance:
        return asyncio.run(whole(lambda done: advance(f"Asking {bench.tested.name}", done / max(1, calls))))


def finished(bench: Bench, document: Mapping[str, Any]) -> dict[str, Any]:
    """Write the results into the folder; return them whole."""
    whole = {"schema": f"influence.bench.{bench.name}/1", "program": __version__, **document}
    save(bench.folder, whole)
    return whole


def save(folder: Path, document: dict[str, Any]) -> None:
    """Write ``bench.json`` as a whole; InfluenceError where it cannot be."""
    import orjson

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise file_error(error, folder) from None
    with whole_file(folder / RESULTS) as temporary:
        temporary.write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2) + b"\n")
