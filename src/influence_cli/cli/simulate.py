"""``influence simulate``: make conversations, watch them, stop them, take them up again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from influence_cli.cli import output
from influence_cli.cli.context import registry_of
from influence_cli.cli.launching import (
    Detach,
    LauncherName,
    LauncherOptions,
    OneShard,
    Patience,
    ResourcesText,
    Restarts,
    Shards,
    launching_arguments,
    sharding_of,
    show_launched,
)
from influence_cli.cli.listening import Talk
from influence_cli.cli.options import (
    CONVERSATION_FLAGS,
    HOW,
    RUN,
    WHAT,
    WHO,
    BackendOptions,
    BaseUrl,
    Concurrency,
    Config,
    Cue,
    Env,
    Folders,
    Json,
    MaxCost,
    MaxReplyTokens,
    MaxTokens,
    NoVeto,
    Out,
    Population,
    Preference,
    Quiet,
    Resume,
    Scenario,
    Seed,
    Temperature,
    Transition,
    Turns,
    User,
    Veto,
    backend_options,
    fractions,
    given,
)
from influence_cli.errors import EXIT_DONE, InfluenceError
from influence_cli.sittings.stops import nothing_begun

if TYPE_CHECKING:
    from collections.abc import Sequence

    from influence_cli.environments.environment import Environment
    from influence_cli.schemas.configs import SimulationConfig
    from influence_cli.schemas.messages import Role
    from influence_cli.simulation.estimate import Estimate
    from influence_cli.simulation.models import RoleModel
    from influence_cli.simulation.summing import Summary

FLAGS = {
    **CONVERSATION_FLAGS,
    "initial_states": "--initial-state",
    "split": "--split",
    "speculate": "--no-speculate",
    "cache": "--cache",
}
"""Which flag sets which setting."""


def simulate(
    ctx: typer.Context,
    run: Annotated[str | None, typer.Argument(help="With --resume: the run to take up.", show_default=False)] = None,
    env: Env = None,
    scenario: Scenario = None,
    initial_state: Annotated[
        list[str] | None, typer.Option(help="Only this initial state.", rich_help_panel=WHAT)
    ] = None,
    n: Annotated[int | None, typer.Option("--n", "-n", help="Conversations in all.", rich_help_panel=WHAT)] = None,
    samples: Annotated[
        int | None, typer.Option(help="Conversations from each initial state.", rich_help_panel=WHAT)
    ] = None,
    turns: Turns = None,
    population: Population = None,
    cue: Cue = None,
    split: Annotated[str | None, typer.Option(help="Initial states: all|train|heldout.", rich_help_panel=WHAT)] = None,
    environments_dir: Folders = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="BACKEND:MODEL[@ADAPTER] of all roles.", rich_help_panel=WHO)
    ] = None,
    agent: Annotated[str | None, typer.Option(help="Model of the agent.", rich_help_panel=WHO)] = None,
    user: User = None,
    preference: Preference = None,
    transition: Transition = None,
    veto: Veto = None,
    base_url: BaseUrl = None,
    option: BackendOptions = None,
    temperature: Temperature = None,
    max_reply_tokens: MaxReplyTokens = None,
    no_veto: NoVeto = False,
    no_speculate: Annotated[
        bool, typer.Option("--no-speculate", help="Ask the user only after the transition.", rich_help_panel=HOW)
    ] = False,
    concurrency: Concurrency = None,
    seed: Seed = None,
    max_cost: MaxCost = None,
    max_tokens: MaxTokens = None,
    cache: Annotated[
        str | None, typer.Option(help="Folder to keep answers in and take them from.", rich_help_panel=HOW)
    ] = None,
    config: Config = None,
    assignments: Annotated[
        list[str] | None, typer.Option("--set", help="Any setting: judges.minimum_mass=0.1.", rich_help_panel=RUN)
    ] = None,
    out: Out = None,
    resume: Resume = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show calls and cost, do nothing.", rich_help_panel=RUN)
    ] = False,
    shards: Shards = None,
    launcher: LauncherName = None,
    launcher_option: LauncherOptions = None,
    resources: ResourcesText = None,
    hang_after: Patience = 900.0,
    restarts: Restarts = 3,
    shard: OneShard = None,
    detach: Detach = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Simulate conversations between an agent and users, and rate every reply.

    [bold]influence simulate --env therapy --n 8[/bold] works with nothing else said.
    """
    from influence_cli.sittings.shards import begin_shard, have_conversations, leave
    from influence_cli.sittings.simulate import begin, estimated, take_up
    from influence_cli.sittings.sources import Sources
    from influence_cli.store.shards import parse_shard

    output.set_quiet(quiet)
    flags = given(
        {
            "environments": env,
            "scenarios": scenario,
            "initial_states": initial_state,
            "n": n,
            "samples": samples,
            "turns": turns,
            "populations": fractions(population),
            "cue": cue,
            "split": split,
            "seed": seed,
            "concurrency": concurrency,
            "default.model": model,
            "roles.agent.model": agent,
            "roles.user.model": user,
            "roles.preference.model": preference,
            "roles.transition.model": transition,
            "roles.veto.model": veto,
            "default.options": backend_options(option),
            "default.options.base_url": base_url,
            "default.sampling.temperature": temperature,
            "roles.agent.sampling.max_tokens": max_reply_tokens,
            "veto": False if no_veto else None,
            "speculate": False if no_speculate else None,
            "budget.cost": max_cost,
            "budget.tokens": max_tokens,
            "cache": cache,
        }
    )
    if run is not None and not resume:
        raise InfluenceError(f"Unexpected argument {run!r}.", hint=f"To take up a run: --resume {run}.")
    registry = registry_of(ctx)
    sources = Sources(flags, config or (), assignments or (), environments_dir or (), FLAGS)
    part = parse_shard(shard) if shard is not None else None
    where = (shards, launcher, launcher_option, resources)
    sharding = sharding_of(registry, *where, patience=hang_after, restarts=restarts, dry=dry_run or detach)
    if part is not None and (sharding is not None or detach):
        raise InfluenceError("--shard is one part, begun by hand.", hint="Leave out --shards, --launcher and --detach.")
    load = sharding is None and not detach and not dry_run
    with nothing_begun():
        if resume:
            sitting = take_up(registry, run or (str(out) if out else "latest"), sources, Talk(), shard=part, load=load)
        elif part is not None and not dry_run:
            sitting = begin_shard(registry, sources, out, part, Talk())
        else:
            sitting = begin(registry, sources, out, Talk(), dry=dry_run, load=load)
    if dry_run:
        _show_estimate(estimated(sitting), sitting.environments, as_json=json)
        return
    if detach:
        given_where = launching_arguments(*where, patience=hang_after, restarts=restarts)
        show_launched(leave(registry, sitting, given_where, Talk()), as_json=json)
        return
    summary = have_conversations(sitting, sharding, Talk())
    if json:
        output.emit_json(summary.document())
    else:
        _show_summary(summary)
    if summary.exit_code != EXIT_DONE:
        raise typer.Exit(summary.exit_code)


def _show_estimate(
    dry: tuple[SimulationConfig, dict[Role, RoleModel], Estimate], environments: Sequence[Environment], *, as_json: bool
) -> None:
    """Show what the run would take at most; as JSON with the resolved settings."""
    from influence_cli.cli.costs import DONE_NOTHING, cost_text, tell_tools, tell_unpriced
    from influence_cli.sittings.loading import tell_models

    config, models, estimate = dry
    tell_models(config, models, output.say)
    tell_tools(environments)
    if as_json:
        roles = {role: vars(entry) for role, entry in estimate.roles.items()}
        output.emit_json(
            {
                "schema": "influence.simulate.dry-run/1",
                "config": config.model_dump(mode="json"),
                "models": {role: str(model.name) for role, model in models.items()},
                "conversations": estimate.conversations,
                "calls": estimate.calls,
                "tokens": estimate.tokens,
                "cost": estimate.cost,
                "roles": roles,
            }
        )
        return
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("role")
    table.add_column("model", overflow="fold")
    for heading in ("calls", "prompt tokens", "reply tokens", "dollars"):
        table.add_column(heading, justify="right")
    for role, entry in estimate.roles.items():
        cost = "?" if entry.cost is None else f"{entry.cost:,.2f}"
        tokens = (f"{entry.prompt_tokens:,}", f"{entry.completion_tokens:,}")
        table.add_row(role, output.plain(str(models[role].name)), f"{entry.calls:,}", *tokens, cost)
    output.emit(table)
    output.emit(
        Text(
            f"At most {estimate.conversations:,} conversations, {estimate.calls:,} calls, {estimate.tokens:,} tokens "
            f"({cost_text(estimate.cost)}). {DONE_NOTHING}"
        )
    )
    tell_unpriced(estimate.unpriced)


def _show_summary(summary: Summary) -> None:
    """Show how a sitting ended, and what can be done next."""
    from rich.text import Text

    from influence_cli.sittings.lines import clock

    tally = summary.tally
    ended = tally.done >= tally.total and tally.stop != "alike"
    if ended and tally.earlier_done and not tally.complete + tally.failed:
        output.emit(Text(f"Nothing is left to do: {tally.earlier_done:,} conversations are complete."))
        output.emit(Text(f"To look at it: influence runs show {output.plain(str(summary.path))}"))
        return
    parts = [f"{tally.complete:,} conversations complete"]
    if tally.earlier_done:
        parts.append(f"{tally.earlier_done:,} earlier")
    if tally.failed:
        parts.append(f"{tally.failed:,} failed")
    parts.append(f"{tally.turns:,} turns in {clock(summary.elapsed)}")
    if summary.mean_rating is not None:
        parts.append(f"mean rating of conversations {summary.mean_rating:.2f}")
    parts.append(f"{tally.tokens:,} tokens")
    if tally.total_cost:
        least = "at least " if tally.unpriced_calls else ""
        parts.append(f"{least}${tally.total_cost:,.4f}")
    output.emit(Text("; ".join(parts) + "."))
    repeated = sum(max(role.requests - role.calls, 0) for role in tally.roles.values())
    if repeated:
        output.say(
            f"{repeated:,} requests more than calls: retries, second looks and samples; `runs show` has the details."
        )
    for (role, kind), count in tally.failures.most_common():
        output.warn(f"{count:,} x {role or 'conversation'}: {kind.replace('_', ' ')} (last: {tally.last_failure})")
    for judge, count in tally.unusable.items():
        calls = tally.roles[judge].calls
        output.warn(f"{count:,} of {calls:,} judgements of {judge} were unusable and enter no figure.")
    for note in summary.notes:
        output.warn(note)
    if summary.reason:
        output.warn(f"{'' if ended else 'Ended early: '}{summary.reason}.")
    _show_next(summary, ended=ended)


def _show_next(summary: Summary, *, ended: bool) -> None:
    """Show what can be done with a run that ``ended``, or stopped before."""
    from rich.text import Text

    from influence_cli.cli.costs import larger_budget

    where, tally = output.plain(str(summary.path)), summary.tally
    if not ended:
        output.emit(Text(f"To go on: influence simulate --resume {where}{larger_budget(tally.stop)}"))
    elif tally.failed:
        output.emit(Text(f"To try the failed ones again: influence simulate --resume {where}"))
        if any(kind == "connection" for _, kind in tally.failures):
            output.say("A server that is at another address now is named with --base-url.")
    output.emit(Text(f"To look at it: influence runs show {where}"))
