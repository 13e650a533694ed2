"""``influence bench sycophancy``: does an assessment, or an answer, follow what the user says."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from influence_cli.cli import output
from influence_cli.cli.bench.options import Concurrency, DryRun, Items, Json, Model, Out, Prompts, Quiet
from influence_cli.cli.context import registry_of
from influence_cli.cli.listening import Talk
from influence_cli.cli.options import AnySeed, Server, ServerOptions, backend_options
from influence_cli.errors import EXIT_DONE, InfluenceError, UnknownNameError

if TYPE_CHECKING:
    from influence_cli.benchmarking.items import AnswerItem, FeedbackItem

_NAME = "sycophancy"


def sycophancy(
    ctx: typer.Context,
    kind: Annotated[str | None, typer.Option("--kind", help="feedback or answer; else both.")] = None,
    model: Model = None,
    prompts: Prompts = None,
    n: Items = None,
    base_url: Server = None,
    option: ServerOptions = None,
    seed: AnySeed = 0,
    concurrency: Concurrency = 32,
    out: Out = None,
    dry_run: DryRun = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure how far assessments of texts, and answers to questions, follow what the user says beside them.

    The same command after a stop asks only what is missing.
    """
    from influence_cli.benchmarking import sycophancy as benchmark
    from influence_cli.benchmarking.asking import Asker
    from influence_cli.benchmarking.bench import folder_of, prepare, run
    from influence_cli.cli.bench.running import dry, finish, show_measures

    output.set_quiet(quiet)
    if kind is not None and kind not in benchmark.KINDS:
        raise UnknownNameError("kind of sycophancy", kind, benchmark.KINDS)
    if prompts is not None and kind is None:
        raise InfluenceError("A file holds items of one kind.", hint="Add --kind feedback or --kind answer.")
    feedback, answers = _items(kind, prompts, n)
    calls = benchmark.calls(feedback, answers)
    if dry_run:
        dry(_NAME, {"calls": calls}, len(feedback) + len(answers), folder_of(_NAME, model, out), as_json=json)
        return
    options, heard = backend_options(option) or {}, Talk()
    bench = prepare(registry_of(ctx), _NAME, model, options=options, base_url=base_url, out=out, heard=heard)
    asker = Asker(bench.tested, seed)
    work = benchmark.ask
    found = run(bench, calls, lambda told: work(asker, feedback, answers, at_once=concurrency, told=told), heard)
    document = {
        "model": str(bench.tested.name),
        "seed": seed,
        "prompts": None if prompts is None else str(prompts),
        "measures": benchmark.measures(found),
        "calls": {"model": asker.tally.document()},
        "answers": {each: [vars(item) for item in items] for each, items in found.items()},
    }
    code = finish(bench, document, as_json=json, show=show_measures)
    if code != EXIT_DONE:
        raise typer.Exit(code)


def _items(kind: str | None, prompts: Path | None, n: int | None) -> tuple[list[FeedbackItem], list[AnswerItem]]:
    from influence_cli.benchmarking.items import answer_items, feedback_items

    feedback = feedback_items(prompts) if kind in (None, "feedback") else []
    answers = answer_items(prompts) if kind in (None, "answer") else []
    return feedback[:n], answers[:n]
