"""``influence train``: have conversations, select the best, train on them, and measure; over and over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from influence_cli.cli import output
from influence_cli.cli.context import registry_of
from influence_cli.cli.launching import Detach, LauncherName, LauncherOptions, ResourcesText, place_of, show_launched
from influence_cli.cli.listening import Talk
from influence_cli.cli.options import (
    CONVERSATION_FLAGS,
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
from influence_cli.errors import InfluenceError
from influence_cli.sittings.stops import nothing_begun

if TYPE_CHECKING:
    from influence_cli.sittings.train import TrainPlan, TrainResult

_LEARN = "What is learnt, and how"

FLAGS = {
    **CONVERSATION_FLAGS,
    "roles.judge.model": "--judge",
    "algorithm.name": "--algo",
    "algorithm.options": "--algo-option",
    "source.run": "--from",
    "iterations": "--iterations",
    "selection.fraction": "--top",
    "selection.reward": "--reward",
    "selection.level": "--level",
    "selection.how": "--random",
    "evaluation.n": "--heldout-n",
    "trackers": "--tracker",
}
"""Which flag sets which setting."""

Texts = list[str] | None


def train(
    ctx: typer.Context,
    run: Annotated[str | None, typer.Argument(help="With --resume: the run to take up.", show_default=False)] = None,
    env: Env = None,
    scenario: Scenario = None,
    n: Annotated[int | None, typer.Option("--n", "-n", help="Of each iteration.", rich_help_panel=WHAT)] = None,
    samples: Annotated[int | None, typer.Option(help="From each initial state.", rich_help_panel=WHAT)] = None,
    turns: Turns = None,
    population: Population = None,
    cue: Cue = None,
    heldout_n: Annotated[int | None, typer.Option(help="Held-out conversations.", rich_help_panel=WHAT)] = None,
    environments_dir: Folders = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="BACKEND:MODEL of all roles.", rich_help_panel=WHO)
    ] = None,
    agent: Annotated[str | None, typer.Option(help="Model that is trained.", rich_help_panel=WHO)] = None,
    user: User = None,
    preference: Preference = None,
    transition: Transition = None,
    veto: Veto = None,
    judge: Annotated[str | None, typer.Option(help="With --reward score: who judges.", rich_help_panel=WHO)] = None,
    base_url: BaseUrl = None,
    option: BackendOptions = None,
    algo: Annotated[str | None, typer.Option(help="expert-iteration, kto, dpo, ...", rich_help_panel=_LEARN)] = None,
    algo_option: Annotated[Texts, typer.Option(help="KEY=VALUE for it.", rich_help_panel=_LEARN)] = None,
    source: Annotated[
        str | None,
        typer.Option("--from", help="RUN that the first iteration learns from.", rich_help_panel=_LEARN),
    ] = None,
    iterations: Annotated[int | None, typer.Option(help="How often.", rich_help_panel=_LEARN)] = None,
    top: Annotated[
        str | None, typer.Option(help="Share of a group that is best: 1/16.", rich_help_panel=_LEARN)
    ] = None,
    reward: Annotated[str | None, typer.Option(help="mean|final|whole|score.", rich_help_panel=_LEARN)] = None,
    level: Annotated[
        str | None, typer.Option(help="Groups: initial-state|scenario|environment.", rich_help_panel=_LEARN)
    ] = None,
    random: Annotated[
        bool, typer.Option("--random", help="A control: select at random.", rich_help_panel=_LEARN)
    ] = False,
    tracker: Annotated[
        Texts, typer.Option(help="Who follows the run: tensorboard, wandb, mlflow.", rich_help_panel=_LEARN)
    ] = None,
    temperature: Temperature = None,
    max_reply_tokens: MaxReplyTokens = None,
    no_veto: NoVeto = False,
    concurrency: Concurrency = None,
    seed: Seed = None,
    max_cost: MaxCost = None,
    max_tokens: MaxTokens = None,
    config: Config = None,
    assignments: Annotated[
        Texts, typer.Option("--set", help="Any setting: selection.veto_level=0.3.", rich_help_panel=RUN)
    ] = None,
    out: Out = None,
    resume: Resume = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show calls, cost, memory, time.", rich_help_panel=RUN)
    ] = False,
    json: Json = False,
    quiet: Quiet = False,
    launcher: LauncherName = None,
    launcher_option: LauncherOptions = None,
    resources: ResourcesText = None,
    detach: Detach = False,
) -> None:
    """Train the agent on its best-rated conversations, and measure it on people it never learnt from.

    [bold]influence train --algo expert-iteration --env therapy --iterations 5[/bold]
    """
    from influence_cli.sittings.detaching import launch, refuse_place
    from influence_cli.sittings.sources import Sources
    from influence_cli.sittings.train import begin, estimated, go, laid_out, take_up

    output.set_quiet(quiet)
    flags = given(
        {
            "environments": env,
            "scenarios": scenario,
            "n": n,
            "samples": samples,
            "turns": turns,
            "populations": fractions(population),
            "cue": cue,
            "seed": seed,
            "concurrency": concurrency,
            "default.model": model,
            "roles.agent.model": agent,
            "roles.user.model": user,
            "roles.preference.model": preference,
            "roles.transition.model": transition,
            "roles.veto.model": veto,
            "roles.judge.model": judge,
            "default.options": backend_options(option),
            "default.options.base_url": base_url,
            "default.sampling.temperature": temperature,
            "roles.agent.sampling.max_tokens": max_reply_tokens,
            "veto": False if no_veto else None,
            "budget.cost": max_cost,
            "budget.tokens": max_tokens,
            "algorithm.name": algo,
            "algorithm.options": backend_options(algo_option, flag="--algo-option"),
            "source.run": source,
            "iterations": iterations,
            "selection.fraction": top,
            "selection.reward": reward,
            "selection.level": level,
            "selection.how": "random" if random else None,
            "evaluation.n": heldout_n,
            "trackers": {name: {} for name in tracker or []},
        }
    )
    if run is not None and not resume:
        raise InfluenceError(f"Unexpected argument {run!r}.", hint=f"To take up a run: --resume {run}.")
    registry = registry_of(ctx)
    sources = Sources(flags, config or (), assignments or (), environments_dir or (), FLAGS)
    elsewhere = launcher is not None or detach
    place = place_of(launcher, launcher_option, resources, detach=detach) if elsewhere else None
    if place is not None:
        refuse_place(registry, place)
    elif launcher_option or resources:
        raise InfluenceError("Nothing is launched here.", hint="Add --launcher NAME or --detach.")
    with nothing_begun():
        if resume:
            plan = take_up(registry, run or (str(out) if out else "latest"), sources, Talk(), dry=dry_run or elsewhere)
        else:
            plan = begin(registry, sources, out, Talk(), dry=dry_run or elsewhere)
    for note in plan.notes:
        output.say(note)
    if dry_run:
        _show_estimate(plan, estimated(plan), as_json=json)
        return
    if place is not None:
        folder = laid_out(plan, out).path
        launched = launch(registry, folder, "train", ("--resume", str(folder.resolve())), place, output.warn)
        show_launched(launched, as_json=json)
        return
    result = go(plan, Talk())
    if json:
        output.emit_json(result.document())
    else:
        _show(result)
    if result.exit_code:
        raise typer.Exit(result.exit_code)


def _show_estimate(plan: TrainPlan, estimate: Any, *, as_json: bool) -> None:
    """Show what the run takes; as JSON with the resolved settings."""
    from influence_cli.cli.costs import tell_tools, tell_unpriced
    from influence_cli.cli.training_tables import estimate_document, estimate_lines
    from influence_cli.sittings.loading import tell_models

    tell_models(plan.config, plan.models, output.say)
    tell_tools(plan.environments)
    if as_json:
        output.emit_json(estimate_document(plan.config, plan.models, estimate))
        return
    for part in estimate_lines(plan.config, plan.models, estimate):
        output.emit(part)
    tell_unpriced(estimate.unpriced)


def _show(result: TrainResult) -> None:
    """Show the iterations, how the run ended, and what can be done next."""
    from influence_cli.cli.costs import larger_budget
    from influence_cli.cli.training_tables import iterations_table

    if result.idle:
        output.emit_text("Nothing is left to do.")
    output.emit(iterations_table(result.iterations))
    for note in result.notes:
        output.warn(note)
    where = output.plain(str(result.path))
    if result.reason:
        output.warn(f"Ended early: {result.reason}.")
        output.emit_text(f"To go on: influence train --resume {where}{larger_budget(result.limit)}")
    output.emit_text(f"To look at it: influence runs show {where}")
