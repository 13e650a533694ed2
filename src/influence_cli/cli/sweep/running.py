"""``influence sweep SWEEP.yaml``: propose settings, run them, learn, and go on; resumable."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from influence_cli.cli import output
from influence_cli.cli.context import registry_of
from influence_cli.cli.listening import Talk
from influence_cli.cli.options import backend_options, given
from influence_cli.errors import InfluenceError
from influence_cli.sittings.stops import nothing_begun

if TYPE_CHECKING:
    from influence_cli.sittings.sweep.preparing import Prepared

_SEARCH, _TRIAL, _WHERE, _SWEEP = "What is searched, and how", "What a trial is", "Where trials run", "The sweep"
Texts = list[str] | None

FLAGS = {
    "command": "--command",
    "search": "--search",
    "trials": "--trials",
    "objectives": "--objective",
    "seeds": "--seeds",
    "parallel": "--parallel",
    "searcher.name": "--searcher",
    "searcher.options": "--searcher-option",
    "launcher.name": "--launcher",
    "launcher.options": "--launcher-option",
    "resources.gpus": "--gpus",
    "budget.cost": "--max-cost",
    "budget.tokens": "--max-tokens",
    "seed": "--seed",
}
"""Which flag sets which setting of a sweep."""

TRIAL_FLAGS = {
    "environments": "--env",
    "algorithm.name": "--algo",
    "algorithm.options": "--algo-option",
    "default.model": "--model",
    "default.options": "-o",
    "n": "--n",
    "samples": "--samples",
    "turns": "--turns",
    "iterations": "--iterations",
    "seed": "--seed",
}
"""Which flag sets which setting of every trial."""


def sweep(
    ctx: typer.Context,
    file: Annotated[
        str | None, typer.Argument(help="SWEEP.yaml; with --resume: the sweep to take up.", show_default=False)
    ] = None,
    search: Annotated[
        Texts,
        typer.Option(help="NAME=SPACE: lr=log(1e-6,1e-4), samples=[1,4,16], turns=1..4.", rich_help_panel=_SEARCH),
    ] = None,
    trials: Annotated[int | None, typer.Option(help="How many.", rich_help_panel=_SEARCH)] = None,
    objective: Annotated[
        str | None, typer.Option(help="NAME[:max|min]: heldout_reward, harm, ...", rich_help_panel=_SEARCH)
    ] = None,
    also: Annotated[Texts, typer.Option(help="A further objective.", rich_help_panel=_SEARCH)] = None,
    seeds: Annotated[int | None, typer.Option(help="Runs of each trial.", rich_help_panel=_SEARCH)] = None,
    searcher: Annotated[str | None, typer.Option(help="grid, random, tpe, nsga2, ...", rich_help_panel=_SEARCH)] = None,
    searcher_option: Annotated[Texts, typer.Option(help="KEY=VALUE for it.", rich_help_panel=_SEARCH)] = None,
    pruner: Annotated[
        str | None, typer.Option(help="Give bad trials up early: median, halving.", rich_help_panel=_SEARCH)
    ] = None,
    storage: Annotated[
        str | None, typer.Option(help="Optuna storage; else SQLite in the folder.", rich_help_panel=_SEARCH)
    ] = None,
    command: Annotated[str | None, typer.Option(help="train or simulate.", rich_help_panel=_TRIAL)] = None,
    env: Annotated[
        Texts, typer.Option("--env", "-e", help="Environment: a name or a folder.", rich_help_panel=_TRIAL)
    ] = None,
    algo: Annotated[str | None, typer.Option(help="How is learnt.", rich_help_panel=_TRIAL)] = None,
    algo_option: Annotated[Texts, typer.Option(help="KEY=VALUE for it.", rich_help_panel=_TRIAL)] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="BACKEND:MODEL of all roles.", rich_help_panel=_TRIAL)
    ] = None,
    option: Annotated[
        Texts, typer.Option("--option", "-o", help="KEY=VALUE for the backend.", rich_help_panel=_TRIAL)
    ] = None,
    n: Annotated[int | None, typer.Option("--n", "-n", help="Conversations.", rich_help_panel=_TRIAL)] = None,
    samples: Annotated[int | None, typer.Option(help="From each initial state.", rich_help_panel=_TRIAL)] = None,
    turns: Annotated[int | None, typer.Option(help="Most agent replies.", rich_help_panel=_TRIAL)] = None,
    iterations: Annotated[int | None, typer.Option(help="How often is learnt.", rich_help_panel=_TRIAL)] = None,
    config: Annotated[
        list[Path] | None, typer.Option("--config", "-c", help="Settings in YAML.", rich_help_panel=_TRIAL)
    ] = None,
    assignments: Annotated[Texts, typer.Option("--set", help="Any setting: turns=2.", rich_help_panel=_TRIAL)] = None,
    environments_dir: Annotated[
        list[Path] | None, typer.Option(help="A folder of environments.", rich_help_panel=_TRIAL)
    ] = None,
    parallel: Annotated[int | None, typer.Option(help="Trials at once.", rich_help_panel=_WHERE)] = None,
    launcher: Annotated[str | None, typer.Option(help="local, ray, slurm.", rich_help_panel=_WHERE)] = None,
    launcher_option: Annotated[Texts, typer.Option(help="KEY=VALUE for it.", rich_help_panel=_WHERE)] = None,
    gpus: Annotated[int | None, typer.Option(help="Of each run.", rich_help_panel=_WHERE)] = None,
    seed: Annotated[int | None, typer.Option(help="Of every random draw.", rich_help_panel=_SWEEP)] = None,
    max_cost: Annotated[float | None, typer.Option(help="Dollars of all trials.", rich_help_panel=_SWEEP)] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Tokens of all trials.", rich_help_panel=_SWEEP)] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the sweep.", rich_help_panel=_SWEEP)] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Take a sweep up again.", rich_help_panel=_SWEEP)] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="With --resume: failed trials once more.", rich_help_panel=_SWEEP)
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show trials and calls.", rich_help_panel=_SWEEP)] = False,
    json: Annotated[bool, typer.Option("--json", help="Figures as JSON on stdout.", rich_help_panel=_SWEEP)] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.", rich_help_panel=_SWEEP)] = False,
) -> None:
    """Run one experiment with many settings, and find which of them matter.

    [bold]influence sweep --env therapy --search lr=log(1e-6,1e-4) --search samples=[1,4,16] --trials 24[/bold]
    """
    from influence_cli.sittings.sweep.preparing import Asked, begin, take_up

    output.set_quiet(quiet)
    own = {
        "command": command,
        "trials": trials,
        "seeds": seeds,
        "searcher.name": searcher,
        "searcher.options": _searcher_options(searcher_option, pruner, storage),
        "parallel": parallel,
        "launcher.name": launcher,
        "launcher.options": backend_options(launcher_option, flag="--launcher-option"),
        "resources.gpus": gpus,
        "seed": seed,
        "budget.cost": max_cost,
        "budget.tokens": max_tokens,
    }
    of_trials = {
        "environments": env,
        "algorithm.name": algo,
        "algorithm.options": backend_options(algo_option, flag="--algo-option"),
        "default.model": model,
        "default.options": backend_options(option),
        "n": n,
        "samples": samples,
        "turns": turns,
        "iterations": iterations,
        "seed": seed,
    }
    asked = Asked(
        flags=given(own),
        trial_flags=given(of_trials),
        search=tuple(search or ()),
        objective=objective,
        also=tuple(also or ()),
        files=tuple(config or ()),
        assignments=tuple(assignments or ()),
        folders=tuple(environments_dir or ()),
        retry_failed=retry_failed,
        flag_names=FLAGS,
        trial_flag_names=TRIAL_FLAGS,
    )
    registry = registry_of(ctx)
    if resume and dry_run:
        raise InfluenceError("--dry-run is for a new sweep.", hint="See `influence sweep show`.")
    if retry_failed and not resume:
        raise InfluenceError("--retry-failed is for a sweep that is taken up.", hint="Add --resume.")
    if resume:
        _go(take_up(registry, file or (str(out) if out else "latest"), asked), as_json=json)
        return
    with nothing_begun():
        prepared = begin(registry, None if file is None else Path(file), asked, out, Talk(), dry=dry_run)
    if dry_run:
        _show_estimate(prepared, as_json=json)
    else:
        _go(prepared, as_json=json)


def _searcher_options(texts: Texts, pruner: str | None, storage: str | None) -> dict[str, Any]:
    options = dict(backend_options(texts, flag="--searcher-option") or {})
    return {**options, **given({"pruner": pruner, "storage": storage})}


def _show_estimate(prepared: Prepared, *, as_json: bool) -> None:
    from influence_cli.cli.costs import tell_unpriced
    from influence_cli.cli.sweep.tables import estimate_parts
    from influence_cli.sittings.sweep.estimating import estimate_document

    document = estimate_document(prepared, Talk())
    for note in document["notes"]:
        output.say(note)
    if as_json:
        output.emit_json(document)
        return
    for part in estimate_parts(document):
        output.emit(part)
    tell_unpriced(document["unpriced"])


def _go(prepared: Prepared, *, as_json: bool) -> None:
    """Have the trials; show what they came to, how it ended, and what can be done next."""
    from influence_cli.cli.sweep.tables import sweep_parts
    from influence_cli.sittings.sweep.going import go

    swept = go(prepared, Talk())
    if as_json:
        output.emit_json(swept.document())
    else:
        for part in sweep_parts(swept.figures):
            output.emit(part)
    where = output.plain(str(swept.path))
    if swept.reason:
        output.warn(f"{'' if swept.over else 'Ended early: '}{swept.reason}.")
    if not swept.over:
        output.say(f"To go on: influence sweep --resume {where}")
    if any(trial["state"] == "failed" for trial in swept.figures["trials"]):
        output.say(f"To try the failed trials again: influence sweep --resume {where} --retry-failed")
    output.say(f"To look at it: influence sweep show {where}; influence sweep report {where}; influence view {where}")
    if swept.exit_code:
        raise typer.Exit(swept.exit_code)
