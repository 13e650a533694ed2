"""The way of the command line as functions: simulate, score, train, sweep, report, compare; for scripts and notebooks.

Each function is the command of its name without the talk: the same settings and names, the same run directories, the same
objects that ``--json`` writes. Mistakes raise :class:`~influence_cli.errors.InfluenceError`; warnings go to the log, and
nothing is printed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from influence_cli.errors import InfluenceError
from influence_cli.listening import Unwatched

if TYPE_CHECKING:
    from influence_cli.plugins.registry import PluginRegistry
    from influence_cli.sharding.splitting import Launching, Sharding
    from influence_cli.simulation.summing import Summary
    from influence_cli.sittings.sweep.going import Swept
    from influence_cli.sittings.train import TrainResult
    from influence_cli.store.reader import RunReader

T = TypeVar("T")
_HEARD = Unwatched()
logging.getLogger("influence_cli").addHandler(logging.NullHandler())  # else logging prints what nobody asked for
Settings = Mapping[str, Any]
"""Any key of docs/settings.md, dotted: ``{"turns": 3, "roles.user.model": "openai:gpt-4o-mini"}``."""


@dataclass(frozen=True)
class Finished:
    """How a command ended: the run's directory, its exit code, and the object that ``--json`` writes."""

    path: Path
    exit_code: int
    document: dict[str, Any]


def simulate(
    environments: str | Path | Sequence[str | Path],
    *,
    model: str | None = None,
    n: int | None = None,
    out: str | Path | None = None,
    settings: Settings | None = None,
    files: Sequence[Path] = (),
    folders: Sequence[Path] = (),
    shards: int | None = None,
    launcher: str | Launching | None = None,
) -> Finished:
    """Have conversations, as ``influence simulate``; ``files`` hold settings in YAML, ``folders`` environments.

    With ``shards`` or a ``launcher``, processes that it starts have them: the run is the one that this process would make.
    """
    flags = _flags(environments, {"default.model": model, "n": n}, settings)

    def work() -> Finished:
        from influence_cli.plugins.registry import make_registry
        from influence_cli.sittings.shards import have_conversations
        from influence_cli.sittings.simulate import begin
        from influence_cli.sittings.sources import Sources

        registry = make_registry()
        sharding = _sharding(registry, shards, launcher)
        sitting = begin(registry, Sources(flags, files, folders=folders), _path(out), _HEARD, load=sharding is None)
        return _conversations(have_conversations(sitting, sharding, _HEARD))

    return _done(work)


def train(
    environments: str | Path | Sequence[str | Path],
    *,
    algorithm: str | None = None,
    iterations: int | None = None,
    model: str | None = None,
    n: int | None = None,
    out: str | Path | None = None,
    settings: Settings | None = None,
    files: Sequence[Path] = (),
    folders: Sequence[Path] = (),
) -> Finished:
    """Train the agent, as ``influence train``; options of the algorithm are settings ``algorithm.options.NAME``."""
    given = {"default.model": model, "n": n, "algorithm.name": algorithm, "iterations": iterations}
    flags = _flags(environments, given, settings)

    def work() -> Finished:
        from influence_cli.plugins.registry import make_registry
        from influence_cli.sittings.sources import Sources
        from influence_cli.sittings.train import begin, go

        plan = begin(make_registry(), Sources(flags, files, folders=folders), _path(out), _HEARD)
        return _iterations(go(plan, _HEARD))

    return _done(work)


def sweep(
    environments: str | Path | Sequence[str | Path] | None = None,
    *,
    search: Mapping[str, Any] | None = None,
    objective: str | None = None,
    also: Sequence[str] = (),
    trials: int | None = None,
    command: Literal["train", "simulate"] | None = None,
    model: str | None = None,
    n: int | None = None,
    out: str | Path | None = None,
    settings: Settings | None = None,
    sweep_settings: Settings | None = None,
    file: str | Path | None = None,
    files: Sequence[Path] = (),
    folders: Sequence[Path] = (),
) -> Finished:
    """Have many runs over a space of settings, as ``influence sweep``; the object is that of :func:`sweep_show`.

    ``search`` holds a space by name: ``{"lr": "log(1e-6,1e-4)", "samples": [1, 4, 16]}``. ``settings`` and ``files`` say
    what every trial is; ``sweep_settings`` are of the sweep itself, any key of docs/sweeps.md: ``{"parallel": 2,
    "searcher.name": "random"}``; ``file`` is a sweep in YAML, over which all of these go.
    """
    given = {"search": dict(search or {}), "trials": trials, "command": command}
    flags = {key: value for key, value in given.items() if value not in (None, {})} | dict(sweep_settings or {})
    of_trials = _flags(environments or (), {"default.model": model, "n": n}, settings)

    def work() -> Finished:
        from influence_cli.plugins.registry import make_registry
        from influence_cli.sittings.sweep.going import go
        from influence_cli.sittings.sweep.preparing import Asked, begin

        asked = Asked(
            flags=flags,
            trial_flags={key: value for key, value in of_trials.items() if value != []},
            objective=objective,
            also=tuple(also),
            files=tuple(files),
            folders=tuple(folders),
        )
        return _trials(go(begin(make_registry(), _path(file), asked, _path(out), _HEARD), _HEARD))

    return _done(work)


def sweep_show(sweep: str | Path = "latest", *, importance: str | None = None) -> dict[str, Any]:
    """Return every trial of a sweep, which parameters matter, and the best: the object ``influence.sweep.show/1``."""

    def work() -> dict[str, Any]:
        from influence_cli.plugins.registry import make_registry
        from influence_cli.sittings.sweep.figures import document_of
        from influence_cli.sweeps.directory import find_sweep, open_sweep

        return document_of(make_registry(), open_sweep(find_sweep(str(sweep))), importance)

    return _done(work)


def sweep_best(sweep: str | Path = "latest", *, trial: int | None = None) -> dict[str, Any]:
    """Return the best trial of a sweep, or another: the object ``influence.sweep.best/1``."""
    from influence_cli.sweeps.figures import best_document

    return best_document(sweep_show(sweep), trial)


def resume(
    run: str | Path,
    *,
    settings: Settings | None = None,
    shards: int | None = None,
    launcher: str | Launching | None = None,
    retry_failed: bool = False,
) -> Finished:
    """Take up a run of :func:`simulate` or :func:`train`, or a sweep, as ``--resume``; what was answered is not asked again.

    ``shards`` and ``launcher`` are for conversations, whoever had the first of them; with ``retry_failed`` a sweep has its
    failed trials once more.
    """
    flags, name = dict(settings or {}), str(run)

    def work() -> Finished:
        from influence_cli.plugins.registry import make_registry
        from influence_cli.store.run_directory import RUNS, find_run, open_run
        from influence_cli.sweeps.directory import is_sweep

        registry = make_registry()
        if any(map(is_sweep, (Path(name), RUNS / name))):
            _refuse_split(name, (shards, launcher))
            return _sweep_again(registry, name, flags, retry_failed=retry_failed)
        if open_run(find_run(name)).manifest.command == "train":
            return _training_again(registry, name, flags, shards, launcher)
        return _simulation_again(registry, name, flags, shards, launcher)

    return _done(work)


def score(
    run: str | Path,
    names: Sequence[str] = (),
    *,
    judges: Sequence[str] = (),
    rubrics: Sequence[Path] = (),
    method: Literal["distribution", "structured", "vote"] = "distribution",
    probes: bool = False,
    control: bool = False,
    limit: int | None = None,
    settings: Settings | None = None,
    shards: int | None = None,
    launcher: str | Launching | None = None,
) -> Finished:
    """Judge a run, as ``influence score``: ``names`` are those of ``--with``, ``rubrics`` files of one's own.

    With ``shards`` or a ``launcher``, processes that it starts judge: the scores are those that this process would give.
    """
    flags = dict(settings or {})

    def work() -> Finished:
        from influence_cli.plugins.registry import make_registry
        from influence_cli.scoring.judging import Asking
        from influence_cli.sittings.score.documents import document
        from influence_cli.sittings.score.going import have_scores, refuse_whole
        from influence_cli.sittings.score.resolving import Wanted, load_models, resolve
        from influence_cli.sittings.sources import Sources

        registry = make_registry()
        sharding = _sharding(registry, shards, launcher)
        refuse_whole(sharding is not None, batch=False, control=control)
        wanted = Wanted(names, rubrics, probes, control, judges)
        resolved = resolve(registry, str(run), wanted, Sources(flags), _HEARD)
        if sharding is None:
            load_models(registry, resolved, _HEARD)
        asking = Asking(method=method, seed=resolved.config.seed, draws=resolved.config.judges.draws)
        request = resolved.request(asking, limit=limit)
        result = have_scores(resolved, request, sharding, _HEARD)
        code, _ = result.ending(resolved.config.max_failed_share)
        return Finished(resolved.directory.path, code, document(resolved, request, result))

    return _done(work)


def report(*runs: str | Path, rubrics: Sequence[Path] = ()) -> dict[str, Any]:
    """Return every figure of ``runs`` with its interval: the object ``influence.report/1``."""

    def work() -> dict[str, Any]:
        from influence_cli.plugins.registry import make_registry
        from influence_cli.report.catalogues import catalogue_of
        from influence_cli.report.document import report_document
        from influence_cli.sittings.opening import runs_to_read

        directories = runs_to_read(map(str, runs), _HEARD.warn)
        return report_document(directories, catalogue_of(make_registry(), directories, list(rubrics), told=_HEARD.warn))

    return _done(work)


def compare(first: str | Path, second: str | Path, *, most: int = 10) -> dict[str, Any]:
    """Return what differs, the second less the first: the object ``influence.compare/1``; ``RUN@3`` is iteration 3."""

    def work() -> dict[str, Any]:
        from influence_cli.plugins.registry import make_registry
        from influence_cli.report.catalogues import catalogue_of
        from influence_cli.report.comparison import comparison_document, side_of

        before, after = side_of(str(first), _HEARD.warn), side_of(str(second), _HEARD.warn)
        catalogue = catalogue_of(make_registry(), [before.directory, after.directory], told=_HEARD.warn)
        return comparison_document(before, after, catalogue, most)

    return _done(work)


def read_run(run: str | Path = "latest") -> RunReader:
    """Return an open reader of a run: a directory, a name under ``runs``, or ``latest``. Close it, or use ``with``."""
    from influence_cli.sittings.opening import run_to_read
    from influence_cli.store.reader import RunReader

    return RunReader(run_to_read(str(run), _HEARD.warn))


def _sharding(registry: PluginRegistry, shards: int | None, launcher: str | Launching | None) -> Sharding | None:
    """Return how work is split; None where this process does it all."""
    from influence_cli.sharding.splitting import Launching, sharding_with

    if shards is None and launcher is None:
        return None
    if shards is not None and shards < 1:
        raise InfluenceError(f"{shards} shards are none.", hint="Leave it out, or name one at least.")
    how = Launching() if launcher is None else Launching(launcher) if isinstance(launcher, str) else launcher
    return sharding_with(registry, shards, how)


def _simulation_again(
    registry: PluginRegistry, name: str, flags: Settings, shards: int | None, launcher: str | Launching | None
) -> Finished:
    from influence_cli.sittings.shards import have_conversations
    from influence_cli.sittings.simulate import take_up
    from influence_cli.sittings.sources import Sources

    sharding = _sharding(registry, shards, launcher)
    sitting = take_up(registry, name, Sources(flags), _HEARD, load=sharding is None)
    return _conversations(have_conversations(sitting, sharding, _HEARD))


def _training_again(registry: PluginRegistry, name: str, flags: Settings, *split: object) -> Finished:
    from influence_cli.sittings.sources import Sources
    from influence_cli.sittings.train import go, take_up

    _refuse_split(name, split)
    return _iterations(go(take_up(registry, name, Sources(flags), _HEARD), _HEARD))


def _sweep_again(registry: PluginRegistry, name: str, flags: Settings, *, retry_failed: bool) -> Finished:
    from influence_cli.sittings.sweep.going import go
    from influence_cli.sittings.sweep.preparing import Asked, take_up

    return _trials(go(take_up(registry, name, Asked(flags=flags, retry_failed=retry_failed)), _HEARD))


def _refuse_split(name: str, split: Sequence[object]) -> None:
    """Raise InfluenceError if what is not split into shards is to be."""
    if any(each is not None for each in split):
        raise InfluenceError(f"{name} is not split into shards.", hint="Leave out shards and launcher.")


def _conversations(summary: Summary) -> Finished:
    return Finished(summary.path, summary.exit_code, summary.document())


def _iterations(result: TrainResult) -> Finished:
    return Finished(result.path, result.exit_code, result.document())


def _trials(swept: Swept) -> Finished:
    return Finished(swept.path, swept.exit_code, swept.document())


def _flags(
    environments: str | Path | Sequence[str | Path], given: Settings, settings: Settings | None
) -> dict[str, Any]:
    names = [environments] if isinstance(environments, str | Path) else environments
    named = {key: value for key, value in given.items() if value is not None}
    return {"environments": [str(name) for name in names], **named, **(settings or {})}


def _path(out: str | Path | None) -> Path | None:
    return None if out is None else Path(out)


def _done(work: Callable[[], T]) -> T:
    """Return what ``work`` does; in a thread of its own where an event loop runs already, as in a notebook."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return work()
    with ThreadPoolExecutor(max_workers=1) as apart:
        return apart.submit(work).result()
