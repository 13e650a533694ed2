"""``influence train``: have conversations, select the best, train on them, and measure; over and over."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from influence_cli.cli import output
from influence_cli.cli.context import registry_of
from influence_cli.cli.launching import Detach, LauncherName, LauncherOptions, ResourcesText
from influence_cli.cli.simulate import backend_options, fractions
from influence_cli.errors import InfluenceError

if TYPE_CHECKING:
    from influence_cli.cli.training import Plan, Result

_WHAT, _WHO, _LEARN, _HOW, _RUN = "What to simulate", "Models", "What is learnt, and how", "How", "The run"

FLAGS = {
    "environments": "--env",
    "scenarios": "--scenario",
    "n": "--n",
    "samples": "--samples",
    "turns": "--turns",
    "populations": "--population",
    "cue": "--cue",
    "seed": "--seed",
    "concurrency": "--concurrency",
    "default.model": "--model",
    "roles.agent.model": "--agent",
    "roles.user.model": "--user",
    "roles.preference.model": "--preference",
    "roles.transition.model": "--transition",
    "roles.veto.model": "--veto",
    "roles.judge.model": "--judge",
    "default.options": "-o",
    "default.options.base_url": "--base-url",
    "default.sampling.temperature": "--temperature",
    "roles.agent.sampling.max_tokens": "--max-reply-tokens",
    "veto": "--no-veto",
    "budget.cost": "--max-cost",
    "budget.tokens": "--max-tokens",
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
    env: Annotated[
        Texts, typer.Option("--env", "-e", help="Environment: a name or a folder.", rich_help_panel=_WHAT)
    ] = None,
    scenario: Annotated[Texts, typer.Option(help="Only this scenario.", rich_help_panel=_WHAT)] = None,
    n: Annotated[int | None, typer.Option("--n", "-n", help="Of each iteration.", rich_help_panel=_WHAT)] = None,
    samples: Annotated[int | None, typer.Option(help="From each initial state.", rich_help_panel=_WHAT)] = None,
    turns: Annotated[int | None, typer.Option(help="Most agent replies.", rich_help_panel=_WHAT)] = None,
    population: Annotated[
        Texts, typer.Option(help="Kinds of users: gameable=0.5,resilient=0.5.", rich_help_panel=_WHAT)
    ] = None,
    cue: Annotated[
        str | None, typer.Option(help="How they show: stated|implied|arbitrary|none.", rich_help_panel=_WHAT)
    ] = None,
    heldout_n: Annotated[int | None, typer.Option(help="Held-out conversations.", rich_help_panel=_WHAT)] = None,
    environments_dir: Annotated[
        list[Path] | None, typer.Option(help="A folder of environments.", rich_help_panel=_WHAT)
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="BACKEND:MODEL of all roles.", rich_help_panel=_WHO)
    ] = None,
    agent: Annotated[str | None, typer.Option(help="Model that is trained.", rich_help_panel=_WHO)] = None,
    user: Annotated[str | None, typer.Option(help="Model of the user.", rich_help_panel=_WHO)] = None,
    preference: Annotated[str | None, typer.Option(help="Model that rates.", rich_help_panel=_WHO)] = None,
    transition: Annotated[str | None, typer.Option(help="Model that moves states.", rich_help_panel=_WHO)] = None,
    veto: Annotated[str | None, typer.Option(help="Model that finds harm.", rich_help_panel=_WHO)] = None,
    judge: Annotated[str | None, typer.Option(help="With --reward score: who judges.", rich_help_panel=_WHO)] = None,
    base_url: Annotated[
        str | None, typer.Option(help="Address of an OpenAI-compatible server.", rich_help_panel=_WHO)
    ] = None,
    option: Annotated[Texts, typer.Option("--option", "-o", help="KEY=VALUE for the backend.")] = None,
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
    temperature: Annotated[float | None, typer.Option(help="Of agent and user.", rich_help_panel=_HOW)] = None,
    max_reply_tokens: Annotated[int | None, typer.Option(help="Of an agent's reply.", rich_help_panel=_HOW)] = None,
    no_veto: Annotated[bool, typer.Option("--no-veto", help="Ask no veto model.", rich_help_panel=_HOW)] = False,
    concurrency: Annotated[int | None, typer.Option(help="Conversations at once.", rich_help_panel=_HOW)] = None,
    seed: Annotated[int | None, typer.Option(help="Of every random draw.", rich_help_panel=_HOW)] = None,
    max_cost: Annotated[float | None, typer.Option(help="Stop at this many dollars.", rich_help_panel=_HOW)] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Stop at this many tokens.", rich_help_panel=_HOW)] = None,
    config: Annotated[
        list[Path] | None, typer.Option("--config", "-c", help="Settings in YAML.", rich_help_panel=_RUN)
    ] = None,
    assignments: Annotated[
        Texts, typer.Option("--set", help="Any setting: selection.veto_level=0.3.", rich_help_panel=_RUN)
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run.", rich_help_panel=_RUN)] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Take a run up again.", rich_help_panel=_RUN)] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show settings, cost, memory, time.", rich_help_panel=_RUN)
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Summary as JSON on stdout.", rich_help_panel=_RUN)] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.", rich_help_panel=_RUN)] = False,
    launcher: LauncherName = None,
    launcher_option: LauncherOptions = None,
    resources: ResourcesText = None,
    detach: Detach = False,
) -> None:
    """Train the agent on its best-rated conversations, and measure it on people it never learnt from.

    [bold]influence train --algo expert-iteration --env therapy --iterations 5[/bold]
    """
    from influence_cli.cli.detaching import Place, launch, refuse_place, show_launched
    from influence_cli.cli.training import begin, estimated, go, laid_out, take_up

    output.set_quiet(quiet)
    given: dict[str, Any] = {
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
    flags = {key: value for key, value in given.items() if value not in (None, {}, [])}
    if run is not None and not resume:
        raise InfluenceError(f"Unexpected argument {run!r}.", hint=f"To take up a run: --resume {run}.")
    registry = registry_of(ctx)
    files, changes = config or [], assignments or []
    elsewhere = launcher is not None or detach
    place = Place(launcher, launcher_option, resources, detach)
    if elsewhere:
        refuse_place(registry, place)
    elif launcher_option or resources:
        raise InfluenceError("Nothing is launched here.", hint="Add --launcher NAME or --detach.")
    if resume:
        name = run or (str(out) if out else "latest")
        plan = take_up(registry, name, flags, changes, files, dry=dry_run or elsewhere)
    else:
        plan = begin(registry, files, flags, changes, environments_dir or [], out, dry=dry_run or elsewhere)
    if dry_run:
        _show_estimate(plan, estimated(plan), as_json=json)
        return
    if elsewhere:
        folder = laid_out(plan, out).path
        launched = launch(registry, folder, "train", ("--resume", str(folder.resolve())), place)
        show_launched(launched, as_json=json)
        return
    result = go(plan)
    if json:
        output.emit_json(result.document())
    else:
        _show(result)
    if result.exit_code:
        raise typer.Exit(result.exit_code)


def _show_estimate(plan: Plan, estimate: Any, *, as_json: bool) -> None:
    """Show the resolved settings and what the run takes."""
    from influence_cli.cli.training_tables import estimate_document, estimate_lines

    if as_json:
        output.emit_json(estimate_document(plan.config, plan.models, estimate))
        return
    import yaml
    from rich.text import Text

    output.emit(Text(yaml.safe_dump(plan.config.model_dump(mode="json"), sort_keys=False).rstrip() + "\n"))
    for part in estimate_lines(plan.config, plan.models, estimate):
        output.emit(part)


def _show(result: Result) -> None:
    """Show the iterations, how the run ended, and what can be done next."""
    from influence_cli.cli.training_tables import iterations_table

    output.emit(iterations_table(result.iterations))
    for note in result.notes:
        output.warn(note)
    where = output.plain(str(result.path))
    if result.reason:
        output.warn(f"Ended early: {result.reason}.")
        output.emit_text(f"To go on: influence train --resume {where}")
    output.emit_text(f"To look at it: influence runs show {where}")
