"""``influence env audit``: how true to life an environment and its simulated users are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from influence_cli.cli import output
from influence_cli.cli.context import registry_of
from influence_cli.cli.env.options import Folders, Model, Name
from influence_cli.cli.listening import Talk
from influence_cli.cli.options import (
    AnySeed,
    AsJson,
    Assignments,
    Config,
    MaxCost,
    MaxTokens,
    Server,
    ServerOptions,
    backend_options,
    given,
)
from influence_cli.errors import EXIT_DONE, EXIT_FAILURES, EXIT_STOPPED, EXIT_USER, InfluenceError

if TYPE_CHECKING:
    from influence_cli.environments.environment import Environment
    from influence_cli.schemas.configs import Budget
    from influence_cli.simulation.audit import Audit
    from influence_cli.simulation.summing import Summary
    from influence_cli.simulation.tally import Tally
    from influence_cli.sittings.sources import Sources

_EXAMPLES = 3


def audit(
    ctx: typer.Context,
    name: Name,
    model: Model = None,
    base_url: Server = None,
    option: ServerOptions = None,
    n: Annotated[int, typer.Option("--n", "-n", min=0, help="Sample conversations.")] = 16,
    states: Annotated[int | None, typer.Option("--states", min=0, help="Initial states to judge; else all.")] = None,
    turns: Annotated[int | None, typer.Option("--turns", min=1, help="Most agent replies.")] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests at once.")] = 32,
    seed: AnySeed = 0,
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the sample's run.")] = None,
    environments_dir: Folders = None,
    max_failed_share: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Failed judgements before exit code 1.")
    ] = 0.1,
    max_cost: MaxCost = None,
    max_tokens: MaxTokens = None,
    config: Config = None,
    assignments: Assignments = None,
    json: AsJson = False,
) -> None:
    """Judge initial states and a sample of conversations for realism, and count the faults of simulated users.

    The judge's figures are worth as much as the judge; the faults are counted in the text. The sample is kept as a run.
    """
    import asyncio

    from influence_cli.cli.simulate import FLAGS
    from influence_cli.resolution import find_environments
    from influence_cli.schemas.configs import SimulationConfig
    from influence_cli.simulation.audit import Audit, audit_conversations, audit_states
    from influence_cli.sittings.loading import role_models
    from influence_cli.sittings.opening import run_to_read
    from influence_cli.sittings.sources import Sources
    from influence_cli.store.reader import RunReader

    registry = registry_of(ctx)
    environment = find_environments(registry, [name], environments_dir or [])[0]
    flags = given({"environments": [name], "n": n or None, "turns": turns, "seed": seed, "default.model": model,
                   "default.options": backend_options(option), "default.options.base_url": base_url,
                   "budget.cost": max_cost, "budget.tokens": max_tokens})  # fmt: skip
    sources = Sources(flags, config or (), assignments or (), environments_dir or (), FLAGS)
    settings = sources.new(SimulationConfig)
    role_models(registry, settings, Talk(), roles=("judge",), load=False)  # a mistake is told before the sample is had
    sample = _sample(ctx, sources, out) if n else None
    run = sample.path if sample else None
    judge = role_models(registry, settings, Talk(), roles=("judge",))["judge"]
    found = Audit(tally=_tally(settings.budget, sample))

    async def work() -> None:
        try:
            episodes = _openings(environment, states, seed)
            await audit_states(episodes, judge, found, concurrency=concurrency, seed=seed)
            if run is not None:
                with RunReader(run_to_read(str(run), output.warn)) as reader:
                    complete = [t for t in reader.trajectories() if t["status"] == "complete"]
                await audit_conversations(environment, complete, judge, found, concurrency=concurrency, seed=seed)
        finally:
            await judge.backend.aclose()

    asyncio.run(work())
    if json:
        output.emit_json(_document(environment, found, run, str(judge.name)))
    else:
        _show(environment, found, run, str(judge.name))
    code = _exit_code(found, sample, max_failed_share)
    if code != EXIT_DONE:
        raise typer.Exit(code)


def _tally(budget: Budget, sample: Summary | None) -> Tally:
    """Return the counters of the judge, for whom the sample leaves what it did not use of ``budget``."""
    from influence_cli.simulation.tally import Tally

    tally = Tally(total=0, budget=budget)
    if sample is not None:
        tally.earlier_tokens, tally.earlier_cost = sample.tally.tokens, sample.tally.total_cost
        tally.unpriced_calls = sample.tally.unpriced_calls
    tally.check_budget()
    return tally


def _exit_code(found: Audit, sample: Summary | None, allowed: float) -> int:
    """Return the exit code of an audit of which the share ``allowed`` of judgements may fail; more is said."""
    from influence_cli.simulation.tally import used_up

    if found.failed_share > allowed:
        output.warn(
            f"{found.failed_share:.0%} of the judgements failed, more than --max-failed-share allows ({allowed:.0%})."
        )
        return EXIT_FAILURES
    stop = found.tally.stop
    if found.unasked and stop in ("cost", "tokens"):
        output.warn(f"{found.unasked:,} judgements were not asked for: {used_up(stop, found.tally.budget)}.")
        return EXIT_STOPPED
    return sample.exit_code if sample else EXIT_DONE


def _sample(ctx: typer.Context, sources: Sources, out: Path | None) -> Summary:
    """Return how the sample's conversations went; where it was stopped, or nothing can be asked, nothing is judged."""
    from influence_cli.sittings.simulate import begin, talk

    summary = talk(begin(registry_of(ctx), sources, out, Talk()), Talk())
    if summary.exit_code == EXIT_USER:
        raise InfluenceError(f"The sample cannot be had: {summary.reason}.")
    if summary.exit_code == EXIT_STOPPED:
        output.warn(f"The sample, {summary.path}, ended early: {summary.reason}. Nothing is judged.")
        raise typer.Exit(EXIT_STOPPED)
    if summary.exit_code:
        output.warn(f"The sample ended early: {summary.reason}. It is judged as it is.")
    return summary


def _openings(environment: Environment, states: int | None, seed: int) -> list[Any]:
    from influence_cli.environments.sampling import episodes
    from influence_cli.schemas.configs import SimulationConfig

    return list(episodes([environment], SimulationConfig(seed=seed)))[:states]


def _document(environment: Environment, found: Audit, run: Path | None, judge: str) -> dict[str, Any]:
    from influence_cli.simulation.audit import QUESTIONS, WORTH

    return {
        "schema": "influence.env.audit/1",
        "environment": environment.name,
        "judge": judge,
        "run": str(run) if run else None,
        "states": found.states,
        "conversations": found.conversations,
        "ratings": {
            what: {question: found.mean(what, question) for question in QUESTIONS}
            for what in ("states", "conversations")
        },
        "lowest": {key: vars(example) for key, example in found.lowest.items()},
        "failed": found.failed,
        "unusable": found.unusable,
        "unasked": found.unasked,
        "tokens": found.tally.tokens,
        "cost": None if found.tally.unpriced_calls else found.tally.total_cost,
        "user_messages": found.user_messages,
        "worth": WORTH,
        "faults": {
            name: {
                "count": len(examples),
                "of": found.chances(name),
                "examples": [vars(example) for example in examples[:_EXAMPLES]],
            }
            for name, examples in found.faults.items()
        },
    }


def _show(environment: Environment, found: Audit, run: Path | None, judge: str) -> None:
    from rich.table import Table

    from influence_cli.environments.card import counted
    from influence_cli.simulation.audit import FAULTS, QUESTIONS, WORTH

    output.emit_text(
        f"{environment.name}, judged by {judge}: {counted(found.states, 'initial state')}, "
        f"{counted(found.conversations, 'conversation')}"
    )
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("mean of 1..5", "states", "conversations"):
        table.add_column(heading)
    for question in QUESTIONS:
        values = [found.mean(what, question) for what in ("states", "conversations")]
        table.add_row(question, *("-" if value is None else f"{value:.2f}" for value in values))
    output.emit(table)
    if found.failed or found.unusable:
        failures = ", ".join(f"{count} x {kind}" for kind, count in found.failed.items()) or "none"
        output.warn(f"Judgements that failed: {failures}; unusable: {found.unusable}. They enter no figure.")
    for key, example in found.lowest.items():
        output.emit_text(f"  worst {key.replace('/', ', ')}: {example.where}: {output.plain(example.text)[:160]}")
    if run is None:
        output.emit_text(f"\n{WORTH}")
        return
    output.emit_text(f"\nFaults of the simulated user in {found.user_messages} messages:")
    for name, examples in found.faults.items():
        of = found.chances(name)
        share = f"{len(examples) / of:.0%}" if of else "-"
        output.emit_text(f"  {name.replace('_', ' ')} ({FAULTS[name]}): {len(examples)} of {of} ({share})")
        for example in examples[:_EXAMPLES]:
            output.emit_text(f"    {example.where}: {output.plain(example.text)[:160]}")
    output.emit_text(f"\n{WORTH}\nThe conversations: influence runs show {run}")
