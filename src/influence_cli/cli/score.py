"""``influence score``: judge a run's conversations."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from influence_cli.cli import output
from influence_cli.cli.context import registry_of
from influence_cli.errors import EXIT_FAILURES, InfluenceError, UnknownNameError

if TYPE_CHECKING:
    from influence_cli.scoring.environment_metrics import MetricRubrics
    from influence_cli.scoring.judging import Asking
    from influence_cli.scoring.running import ScoreTally
    from influence_cli.simulation.models import RoleModel
    from influence_cli.store.run_directory import RunDirectory

_METHODS = ("distribution", "structured", "vote")


def score(
    ctx: typer.Context,
    run: Annotated[str, typer.Argument(help="A run's directory, its name, or latest.")],
    names: Annotated[
        list[str] | None, typer.Option("--with", help="Rubrics, tags, or environment; comma-separated.")
    ] = None,
    rubric: Annotated[list[Path] | None, typer.Option("--rubric", help="A file of rubrics.")] = None,
    judge: Annotated[list[str] | None, typer.Option("--judge", help="BACKEND:MODEL that judges (repeatable).")] = None,
    base_url: Annotated[str | None, typer.Option(help="Address of an OpenAI-compatible server.")] = None,
    option: Annotated[list[str] | None, typer.Option("--option", "-o", help="KEY=VALUE for the backend.")] = None,
    method: Annotated[
        str, typer.Option(help="distribution, structured (with reasons and quotes) or vote.")
    ] = "distribution",
    votes: Annotated[int, typer.Option(min=1, help="Samples of a vote.")] = 5,
    debias: Annotated[
        bool, typer.Option("--debias", help="Ask with the choices both ways round, and average.")
    ] = False,
    no_computed: Annotated[
        bool, typer.Option("--no-computed", help="Leave out the scores that need no judge.")
    ] = False,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Only so many conversations.")] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Conversations judged at once.")] = 32,
    max_failed_share: Annotated[float, typer.Option(min=0.0, max=1.0, help="Before exit code 1.")] = 0.1,
    seed: Annotated[int, typer.Option(help="Of votes.")] = 0,
    list_rubrics: Annotated[bool, typer.Option("--list", help="List the rubrics and tags; score nothing.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Summary as JSON on stdout.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Judge a run's conversations by rubrics; only what is missing is asked.

    Without --with and --rubric: the rubrics tagged core, and the environment's own metrics.
    """
    from influence_cli.cli.resolution import one_model
    from influence_cli.cli.simulate import backend_options
    from influence_cli.scoring.judging import Asking
    from influence_cli.store.run_directory import find_run, open_run

    output.set_quiet(quiet)
    if list_rubrics:
        _list(as_json=json)
        return
    if method not in _METHODS:
        raise UnknownNameError("method", method, _METHODS)
    directory = open_run(find_run(run))
    rubrics = _rubrics(ctx, directory, names or [], rubric or [])
    options = backend_options(option) or {}
    named: list[str | None] = [*judge] if judge else [None]
    judges = [one_model(registry_of(ctx), name, options, base_url) for name in named]
    asking = Asking(method=method, votes=votes, debias=debias, seed=seed)  # type: ignore[arg-type]
    tally, computed = _score(directory, rubrics, judges, asking, concurrency, limit, computed=not no_computed)
    if json:
        output.emit_json(_document(directory, tally, computed, rubrics, judges, asking))
    else:
        _show(directory, tally, computed, judges)
    failed = tally.failed.total()
    if tally.done and failed / tally.done > max_failed_share:
        output.warn(f"{failed:,} of {tally.done:,} judgements failed, more than --max-failed-share allows.")
        raise typer.Exit(EXIT_FAILURES)


def _rubrics(ctx: typer.Context, directory: RunDirectory, names: list[str], files: list[Path]) -> MetricRubrics:
    """Return the rubrics asked for; with nothing asked for, the core ones and the metrics of the run's environments."""
    from influence_cli.cli.resolution import find_environments
    from influence_cli.scoring.environment_metrics import MetricRubrics
    from influence_cli.scoring.rubric_files import pick_rubrics

    wanted = [name.strip() for entry in names for name in entry.split(",") if name.strip()]
    own = "environment" in wanted or not (wanted or files)
    wanted = [name for name in wanted if name != "environment"]
    chosen = pick_rubrics(wanted or ([] if files or own else ["core"]), files)
    if own and not (names or files):
        chosen = pick_rubrics(["core"])
    environments = []
    if own:
        for name in directory.manifest.config.environments:
            try:
                environment = find_environments(registry_of(ctx), [name])[0]
            except InfluenceError as error:
                output.warn(f"The metrics of {name} are left out: {error}")
                continue
            if directory.manifest.environments.get(environment.name) != environment.digest:
                output.warn(
                    f"{environment.name} has changed since the run was made; its metrics are asked as they are now."
                )
            environments.append(environment)
    return MetricRubrics(chosen, environments)


def _score(
    directory: RunDirectory,
    rubrics: MetricRubrics,
    judges: list[RoleModel],
    asking: Asking,
    concurrency: int,
    limit: int | None,
    *,
    computed: bool,
) -> tuple[ScoreTally, int]:
    import asyncio
    from itertools import islice

    from influence_cli.scoring.computed import compute_scores
    from influence_cli.scoring.running import score_trajectories
    from influence_cli.store.reader import RunReader

    async def work() -> tuple[ScoreTally, int]:
        with directory.writer() as writer, RunReader(directory) as reader, output.progress_bar() as advance:
            count = compute_scores(islice(reader.numbered(finished=True), limit), writer) if computed else 0
            total = reader.rows("SELECT count(*) FROM trajectory WHERE status = 'complete'")[0][0]
            expected = max(1, min(total, limit or total) * len(rubrics.names()) * len(judges))

            def told(tally: ScoreTally) -> None:
                advance("Judging", min(1.0, (tally.done + tally.skipped) / expected))

            try:
                tally = await score_trajectories(
                    islice(reader.numbered(finished=True), limit),
                    rubrics.of,
                    judges,
                    asking,
                    writer,
                    concurrency=concurrency,
                    told=told,
                )
            finally:
                for model in judges:
                    await model.backend.aclose()
            return tally, count

    return asyncio.run(work())


def _document(
    directory: RunDirectory,
    tally: ScoreTally,
    computed: int,
    rubrics: MetricRubrics,
    judges: list[RoleModel],
    asking: Asking,
) -> dict[str, Any]:
    return {
        "schema": "influence.score/1",
        "run": str(directory.path),
        "rubrics": rubrics.names(),
        "judges": [str(model.name) for model in judges],
        "method": asking.name,
        "judgements": {
            "asked": tally.done,
            "known": tally.skipped,
            "unusable": tally.unusable,
            "failed": dict(tally.failed),
        },
        "means": {name: total / count for name, (total, count) in tally.sums.items()},
        "computed": computed,
        "tokens": tally.tokens,
        "cached_tokens": tally.cached_tokens,
        "cost": tally.cost,
    }


def _show(directory: RunDirectory, tally: ScoreTally, computed: int, judges: list[RoleModel]) -> None:
    from rich.table import Table

    names = ", ".join(str(model.name) for model in judges)
    output.emit_text(
        f"{tally.done:,} judgements by {names}, {tally.skipped:,} known before; {computed:,} scores computed; "
        f"{tally.tokens:,} tokens."
    )
    if tally.sums:
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("rubric")
        table.add_column("mean", justify="right")
        table.add_column("judgements", justify="right")
        for name, (total, count) in sorted(tally.sums.items()):
            table.add_row(name, f"{total / count:.2f}", f"{int(count):,}")
        output.emit(table)
    for kind, count in tally.failed.most_common():
        output.warn(
            f"{count:,} judgements failed: {kind.replace('_', ' ')}. They enter no figure; run again to ask again."
        )
    if tally.unusable:
        output.warn(f"{tally.unusable:,} judgements were unusable and enter no figure.")
    output.emit_text(f"Next: influence report {directory.path}")


def _list(*, as_json: bool) -> None:
    from rich.table import Table

    from influence_cli.scoring.rubric_files import shipped_rubrics

    known = shipped_rubrics()
    if as_json:
        output.emit_json({"schema": "influence.score.rubrics/1", "rubrics": list(known.values())})
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("rubric", "what it asks for", "scope", "tags"):
        table.add_column(heading)
    for rubric in known.values():
        table.add_row(rubric.id, rubric.title, rubric.scope, ", ".join(rubric.tags))
    output.emit(table)
