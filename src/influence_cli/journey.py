"""The way of the command line as functions: simulate, score, train, report, compare; for scripts and notebooks.

Each function is the command of its name without the talk: the same settings and names, the same run directories, the same
objects that ``--json`` writes. Mistakes raise :class:`~influence_cli.errors.InfluenceError`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

if TYPE_CHECKING:
    from influence_cli.store.reader import RunReader

T = TypeVar("T")
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
) -> Finished:
    """Have conversations, as ``influence simulate``; ``files`` hold settings in YAML, ``folders`` environments."""
    flags = _flags(environments, {"default.model": model, "n": n}, settings)

    def work() -> Finished:
        from influence_cli.cli.sitting import begin, talk
        from influence_cli.plugins.registry import make_registry

        summary = talk(begin(make_registry(), files, flags, (), folders, _path(out)))
        return Finished(summary.path, summary.exit_code, summary.document())

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
        from influence_cli.cli.training import begin, go
        from influence_cli.plugins.registry import make_registry

        result = go(begin(make_registry(), files, flags, (), folders, _path(out)))
        return Finished(result.path, result.exit_code, result.document())

    return _done(work)


def resume(run: str | Path, *, settings: Settings | None = None) -> Finished:
    """Take up a run of :func:`simulate` or :func:`train`, as ``--resume``; what was answered is not asked again."""
    flags = dict(settings or {})

    def work() -> Finished:
        from influence_cli.cli import sitting, training
        from influence_cli.plugins.registry import make_registry
        from influence_cli.store.run_directory import find_run, open_run

        if open_run(find_run(str(run))).manifest.command == "train":
            result = training.go(training.take_up(make_registry(), str(run), flags, (), ()))
            return Finished(result.path, result.exit_code, result.document())
        summary = sitting.talk(sitting.take_up(make_registry(), str(run), flags, (), ()))
        return Finished(summary.path, summary.exit_code, summary.document())

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
) -> Finished:
    """Judge a run, as ``influence score``: ``names`` are those of ``--with``, ``rubrics`` files of one's own."""
    flags = dict(settings or {})

    def work() -> Finished:
        from influence_cli.cli.score.resolving import Wanted, resolve
        from influence_cli.cli.score.scoring import exit_code
        from influence_cli.cli.score.showing import document
        from influence_cli.cli.score.sitting import sit
        from influence_cli.plugins.registry import make_registry
        from influence_cli.scoring.judging import Asking

        wanted = Wanted(names, rubrics, probes, control, judges)
        resolved = resolve(make_registry(), str(run), wanted, flags=flags, files=(), assignments=())
        asking = Asking(method=method, seed=resolved.config.seed, draws=resolved.config.judges.draws)
        request = resolved.request(asking, limit=limit)
        result = sit(resolved, request)
        code = exit_code(result, resolved.config.max_failed_share)
        return Finished(resolved.directory.path, code, document(resolved, request, result))

    return _done(work)


def report(*runs: str | Path, rubrics: Sequence[Path] = ()) -> dict[str, Any]:
    """Return every figure of ``runs`` with its interval: the object ``influence.report/1``."""

    def work() -> dict[str, Any]:
        from influence_cli.plugins.registry import make_registry
        from influence_cli.report.catalogues import catalogue_of
        from influence_cli.report.document import report_document
        from influence_cli.store.run_directory import find_run, open_run

        directories = [open_run(path) for path in dict.fromkeys(find_run(str(run)) for run in runs)]
        return report_document(directories, catalogue_of(make_registry(), directories, list(rubrics)))

    return _done(work)


def compare(first: str | Path, second: str | Path, *, most: int = 10) -> dict[str, Any]:
    """Return what differs, the second less the first: the object ``influence.compare/1``; ``RUN@3`` is iteration 3."""

    def work() -> dict[str, Any]:
        from influence_cli.cli.compare import side
        from influence_cli.plugins.registry import make_registry
        from influence_cli.report.catalogues import catalogue_of
        from influence_cli.report.comparison import comparison_document

        before, after = side(str(first)), side(str(second))
        catalogue = catalogue_of(make_registry(), [before.directory, after.directory], [])
        return comparison_document(before, after, catalogue, most)

    return _done(work)


def read_run(run: str | Path = "latest") -> RunReader:
    """Return an open reader of a run: a directory, a name under ``runs``, or ``latest``. Close it, or use ``with``."""
    from influence_cli.store.reader import RunReader
    from influence_cli.store.run_directory import find_run, open_run

    return RunReader(open_run(find_run(str(run))))


def _flags(
    environments: str | Path | Sequence[str | Path], given: Settings, settings: Settings | None
) -> dict[str, Any]:
    names = [environments] if isinstance(environments, str | Path) else environments
    named = {key: value for key, value in given.items() if value is not None}
    return {"environments": [str(name) for name in names], **named, **(settings or {})}


def _path(out: str | Path | None) -> Path | None:
    return None if out is None else Path(out)


def _done(work: Callable[[], T]) -> T:
    """Return what ``work`` does, in silence; in a thread of its own where an event loop runs already, as in a notebook."""
    with _silence():
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return work()
        with ThreadPoolExecutor(max_workers=1) as apart:
            return apart.submit(work).result()


@contextmanager
def _silence() -> Iterator[None]:
    from influence_cli.cli import output

    before = output.is_quiet()
    output.set_quiet(True)
    try:
        yield
    finally:
        output.set_quiet(before)
