"""``influence score RUN``: judge a run's conversations."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from influence_cli.cli import output
from influence_cli.cli.context import registry_of
from influence_cli.cli.launching import (
    LauncherName,
    LauncherOptions,
    OneShard,
    Patience,
    ResourcesText,
    Restarts,
    Shards,
    SpentSince,
    own_command,
)
from influence_cli.errors import EXIT_DONE, EXIT_FAILURES, EXIT_STOPPED, InfluenceError, UnknownNameError

if TYPE_CHECKING:
    from influence_cli.scoring.sitting import ScoreResult

_WHAT, _WHO, _HOW, _RUN = "What to ask", "Models", "How", "The sitting"
_METHODS = ("distribution", "structured", "vote")
_DEBIASING = ("orders", "directions")

FLAGS = {
    "default.options": "-o",
    "default.options.base_url": "--base-url",
    "concurrency": "--concurrency",
    "seed": "--seed",
    "budget.cost": "--max-cost",
    "budget.tokens": "--max-tokens",
    "max_failed_share": "--max-failed-share",
}
"""Which flag sets which setting."""


def score(
    ctx: typer.Context,
    run: Annotated[str, typer.Argument(help="A run's directory, its name, or latest.")],
    names: Annotated[
        list[str] | None,
        typer.Option("--with", help="Rubrics, tags, scorers, environment; comma-separated.", rich_help_panel=_WHAT),
    ] = None,
    rubric: Annotated[
        list[Path] | None, typer.Option("--rubric", help="A file of rubrics.", rich_help_panel=_WHAT)
    ] = None,
    probes: Annotated[
        bool, typer.Option("--probes", help="Ask the users the probes, before and after.", rich_help_panel=_WHAT)
    ] = False,
    control: Annotated[
        bool, typer.Option("--control", help="With --probes: against a neutral agent.", rich_help_panel=_WHAT)
    ] = False,
    limit: Annotated[
        int | None,
        typer.Option("--limit", min=1, help="Only so many conversations.", rich_help_panel=_WHAT),
    ] = None,
    judge: Annotated[
        list[str] | None, typer.Option("--judge", help="BACKEND:MODEL that judges (repeatable).", rich_help_panel=_WHO)
    ] = None,
    user: Annotated[
        str | None, typer.Option(help="Model of the user; else the run's own.", rich_help_panel=_WHO)
    ] = None,
    control_agent: Annotated[
        str | None, typer.Option(help="Model of the neutral agent; else the run's, untrained.", rich_help_panel=_WHO)
    ] = None,
    base_url: Annotated[
        str | None, typer.Option(help="Address of an OpenAI-compatible server.", rich_help_panel=_WHO)
    ] = None,
    option: Annotated[
        list[str] | None, typer.Option("--option", "-o", help="KEY=VALUE for the backend.", rich_help_panel=_WHO)
    ] = None,
    method: Annotated[
        str, typer.Option(help="distribution, structured (reasons and quotes) or vote.", rich_help_panel=_HOW)
    ] = "distribution",
    votes: Annotated[int, typer.Option(min=1, max=1000, help="Samples of a vote.", rich_help_panel=_HOW)] = 5,
    debias: Annotated[
        list[str] | None,
        typer.Option("--debias", help="orders, directions: ask both ways round, take the mean.", rich_help_panel=_HOW),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of votes and samples.", rich_help_panel=_HOW)] = None,
    batch: Annotated[
        bool, typer.Option("--batch", help="By the provider's batch API: cheaper, later.", rich_help_panel=_HOW)
    ] = False,
    no_wait: Annotated[
        bool, typer.Option("--no-wait", help="With --batch: do not wait for answers.", rich_help_panel=_HOW)
    ] = False,
    poll: Annotated[
        float, typer.Option(min=0.0, help="With --batch: seconds between looks.", rich_help_panel=_HOW)
    ] = 30.0,
    concurrency: Annotated[
        int | None, typer.Option(min=1, help="Conversations judged at once.", rich_help_panel=_HOW)
    ] = None,
    max_cost: Annotated[float | None, typer.Option(help="Stop at this many dollars.", rich_help_panel=_HOW)] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Stop at this many tokens.", rich_help_panel=_HOW)] = None,
    max_failed_share: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="Failed scores before exit code 1.", rich_help_panel=_RUN)
    ] = None,
    config: Annotated[
        list[Path] | None, typer.Option("--config", "-c", help="Settings in YAML.", rich_help_panel=_RUN)
    ] = None,
    assignments: Annotated[
        list[str] | None, typer.Option("--set", help="A setting: prices, judges.minimum_mass.", rich_help_panel=_RUN)
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show calls and cost, do nothing.", rich_help_panel=_RUN)
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Summary as JSON on stdout.", rich_help_panel=_RUN)] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.", rich_help_panel=_RUN)] = False,
    shards: Shards = None,
    launcher: LauncherName = None,
    launcher_option: LauncherOptions = None,
    resources: ResourcesText = None,
    hang_after: Patience = 900.0,
    restarts: Restarts = 3,
    shard: OneShard = None,
    spent_since: SpentSince = None,
) -> None:
    """Judge a run's conversations by rubrics; only what is missing is asked.

    Without --with, --rubric and --probes: the rubrics tagged core, the environment's own metrics, and what needs no judge.

    See also: influence score rubrics, influence score calibrate --help.
    """
    from influence_cli.cli.minding import sharding_of
    from influence_cli.cli.score.resolving import Wanted, resolve, shared
    from influence_cli.cli.score.sharding import score_in_shards
    from influence_cli.cli.score.showing import document, estimate_document, show, show_estimate
    from influence_cli.cli.score.sitting import estimated, sit
    from influence_cli.cli.simulate import backend_options
    from influence_cli.scoring.judging import Asking
    from influence_cli.scoring.shards import shard_keys

    output.set_quiet(quiet)
    if method not in _METHODS:
        raise UnknownNameError("method", method, _METHODS)
    if control and not probes:
        raise InfluenceError("--control compares what probes find.", hint="Add --probes.")
    given: dict[str, Any] = {
        "default.options": backend_options(option),
        "default.options.base_url": base_url,
        "concurrency": concurrency,
        "seed": seed,
        "budget.cost": max_cost,
        "budget.tokens": max_tokens,
        "max_failed_share": max_failed_share,
    }
    turned = _debiasing(debias)
    limit = limit and min(limit, sys.maxsize)
    registry = registry_of(ctx)
    where = (shards, launcher, launcher_option, resources)
    sharding = sharding_of(registry, *where, patience=hang_after, restarts=restarts, dry=dry_run)
    _refuse_whole(sharding is not None or shard is not None, batch=batch, control=control)
    resolved = resolve(
        registry,
        run,
        Wanted(_listed(names), rubric or [], probes, control, judge or [], user, control_agent),
        flags={key: value for key, value in given.items() if value not in (None, {})},
        files=config or [],
        assignments=assignments or [],
        load=sharding is None,
    )
    if shard is not None and not dry_run:
        resolved = shared(resolved, shard)
    if sharding is not None:
        resolved.command = own_command(ctx.command, str(resolved.directory.path.resolve()))
    asking = Asking(
        method=method,  # type: ignore[arg-type]
        votes=votes,
        orders="orders" in turned,
        directions="directions" in turned,
        seed=resolved.config.seed,
        draws=resolved.config.judges.draws,
    )
    request = resolved.request(asking, limit=limit, batch=batch, wait=not no_wait, poll_seconds=poll)
    if dry_run:
        estimate = estimated(resolved, request)
        if json:
            output.emit_json(estimate_document(resolved, request, estimate))
        else:
            show_estimate(estimate)
        return
    if resolved.directory.shard is not None:
        request.only = shard_keys(resolved.directory, limit)
    result = sit(resolved, request, spent_since) if sharding is None else score_in_shards(resolved, request, sharding)
    if json:
        output.emit_json(document(resolved, request, result))
    else:
        show(resolved, request, result)
    code = exit_code(result, resolved.config.max_failed_share)
    if code != EXIT_DONE:
        raise typer.Exit(code)


def _debiasing(entries: list[str] | None) -> list[str]:
    """Return the ways of debiasing asked for; UnknownNameError for one that there is not."""
    turned = _listed(entries)
    for name in turned:
        if name not in _DEBIASING:
            raise UnknownNameError("debiasing", name, _DEBIASING)
    return turned


def _refuse_whole(in_shards: bool, *, batch: bool, control: bool) -> None:
    """Raise InfluenceError for what cannot be split."""
    if in_shards and (batch or control):
        raise InfluenceError("Batches and controls belong to the whole run.", hint="Leave out the shards.")


def _listed(entries: list[str] | None) -> list[str]:
    """Return what stands between the commas of all ``entries``."""
    return [part.strip() for entry in entries or [] for part in entry.split(",") if part.strip()]


def exit_code(result: ScoreResult, allowed: float) -> int:
    """Return the exit code of a sitting of which the share ``allowed`` may fail; more is said."""
    tally = result.tally
    if result.given_up:
        output.warn(f"Scores are missing: {result.given_up}. The same command goes on.")
        return EXIT_FAILURES
    if tally.stop is not None:
        return EXIT_STOPPED
    failed = tally.failed.total()
    if tally.done and failed / tally.done > allowed:
        output.warn(f"{failed:,} of {tally.done:,} scores failed, more than --max-failed-share allows ({allowed:.0%}).")
        return EXIT_FAILURES
    return EXIT_DONE
