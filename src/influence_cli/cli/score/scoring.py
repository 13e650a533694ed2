"""``influence score RUN``: judge a run's conversations."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

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
    sharding_of,
)
from influence_cli.cli.listening import Talk
from influence_cli.cli.options import BackendOptions, BaseUrl, MaxCost, MaxTokens, backend_options, given
from influence_cli.errors import EXIT_DONE, UnknownNameError

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
        int | None, typer.Option("--limit", min=1, help="Only so many conversations.", rich_help_panel=_WHAT)
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
    base_url: BaseUrl = None,
    option: BackendOptions = None,
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
    max_cost: MaxCost = None,
    max_tokens: MaxTokens = None,
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
    from influence_cli.cli.score.showing import show, show_estimate
    from influence_cli.scoring.judging import Asking
    from influence_cli.scoring.shards import shard_keys
    from influence_cli.sittings.opening import tell_unmerged
    from influence_cli.sittings.score.documents import document, estimate_document
    from influence_cli.sittings.score.going import estimated, have_scores, make_ready, refuse_whole
    from influence_cli.sittings.score.resolving import Wanted, resolve, shared
    from influence_cli.sittings.sources import Sources
    from influence_cli.store.shards import parse_shard

    output.set_quiet(quiet)
    if method not in _METHODS:
        raise UnknownNameError("method", method, _METHODS)
    flags = given(
        {
            "default.options": backend_options(option),
            "default.options.base_url": base_url,
            "concurrency": concurrency,
            "seed": seed,
            "budget.cost": max_cost,
            "budget.tokens": max_tokens,
            "max_failed_share": max_failed_share,
        }
    )
    turned = _debiasing(debias)
    limit = limit and min(limit, sys.maxsize)
    registry = registry_of(ctx)
    where = (shards, launcher, launcher_option, resources)
    sharding = sharding_of(registry, *where, patience=hang_after, restarts=restarts, dry=dry_run)
    refuse_whole(sharding is not None or shard is not None, batch=batch, control=control)
    part = parse_shard(shard) if shard is not None else None
    resolved = resolve(
        registry,
        run,
        Wanted(_listed(names), rubric or [], probes, control, judge or [], user, control_agent),
        Sources(flags, config or (), assignments or (), flag_names=FLAGS),
        Talk(),
        gather=not dry_run and part is None,
    )
    if part is not None and not dry_run:
        resolved = shared(resolved, part)
    asking = Asking(
        method=method,  # type: ignore[arg-type]
        votes=votes,
        orders="orders" in turned,
        directions="directions" in turned,
        seed=resolved.config.seed,
        draws=resolved.config.judges.draws,
    )
    if not dry_run:
        make_ready(registry, resolved, asking, limit, Talk(), load=sharding is None)
    request = resolved.request(asking, limit=limit, batch=batch, wait=not no_wait, poll_seconds=poll)
    if dry_run:
        tell_unmerged(resolved.directory, output.warn)
        estimate = estimated(resolved, request)
        if json:
            output.emit_json(estimate_document(resolved, request, estimate))
        else:
            show_estimate(estimate)
        return
    if resolved.directory.shard is not None:
        request.only = shard_keys(resolved.directory, limit)
    result = have_scores(resolved, request, sharding, Talk(), spent_since)
    if json:
        output.emit_json(document(resolved, request, result))
    else:
        show(resolved, request, result)
    code, told = result.ending(resolved.config.max_failed_share)
    if told:
        output.warn(told)
    if code != EXIT_DONE:
        raise typer.Exit(code)


def _debiasing(entries: list[str] | None) -> list[str]:
    """Return the ways of debiasing asked for; UnknownNameError for one that there is not."""
    turned = _listed(entries)
    for name in turned:
        if name not in _DEBIASING:
            raise UnknownNameError("debiasing", name, _DEBIASING)
    return turned


def _listed(entries: list[str] | None) -> list[str]:
    """Return what stands between the commas of all ``entries``."""
    return [part.strip() for entry in entries or [] for part in entry.split(",") if part.strip()]
