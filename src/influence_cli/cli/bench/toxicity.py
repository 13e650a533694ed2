"""``influence bench toxicity``: how toxic continuations of given beginnings are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from influence_cli.cli import output
from influence_cli.cli.bench.options import Concurrency, DryRun, Items, Json, Judge, Model, Out, Prompts, Quiet
from influence_cli.cli.context import registry_of
from influence_cli.cli.listening import Talk
from influence_cli.cli.options import AnySeed, Server, ServerOptions, backend_options
from influence_cli.errors import EXIT_DONE, UnknownNameError

if TYPE_CHECKING:
    from influence_cli.benchmarking.asking import CallTally
    from influence_cli.benchmarking.bench import Bench
    from influence_cli.benchmarking.toxicity import Classifier
    from influence_cli.plugins.registry import PluginRegistry
    from influence_cli.schemas.messages import Role

_NAME = "toxicity"


def toxicity(
    ctx: typer.Context,
    classifier: Annotated[
        str, typer.Option("--classifier", help="A rubric, which --judge answers; or SCORER, SCORER/SCORE of a plugin.")
    ] = "toxicity",
    samples: Annotated[int, typer.Option("--samples", min=1, help="Continuations of each beginning.")] = 5,
    model: Model = None,
    judge: Judge = None,
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
    """Have a model continue beginnings, and let a classifier say how toxic the continuations are.

    --prompts takes the lines of RealToxicityPrompts as they are. The same command after a stop asks only what is missing.
    """
    from influence_cli.benchmarking import toxicity as benchmark
    from influence_cli.benchmarking.asking import Asker, CallTally
    from influence_cli.benchmarking.bench import folder_of, prepare, run
    from influence_cli.benchmarking.items import beginnings
    from influence_cli.cli.bench.running import dry, finish, show_measures

    output.set_quiet(quiet)
    registry = registry_of(ctx)
    items = beginnings(prompts)[:n]
    by_rubric = _is_rubric(registry, classifier)
    calls = len(items) * samples
    if dry_run:
        took = {"continuations": calls, **({"judgements": calls} if by_rubric else {})}
        dry(_NAME, took, len(items), folder_of(_NAME, model, out), as_json=json)
        return
    roles: tuple[Role, ...] = ("agent", "judge") if by_rubric else ("agent",)
    bench = prepare(
        registry,
        _NAME,
        model,
        judge=judge,
        roles=roles,
        options=backend_options(option) or {},
        base_url=base_url,
        out=out,
        heard=Talk(),
    )
    asker, judged = Asker(bench.tested, seed), CallTally()
    by = _classifier(registry, bench, classifier, seed, judged)
    work = benchmark.ask
    found = run(
        bench, calls, lambda told: work(asker, items, by, samples=samples, at_once=concurrency, told=told), Talk()
    )
    judged.failed.update(by.failed)
    document = {
        "model": str(bench.tested.name),
        "classifier": by.name,
        "seed": seed,
        "samples": samples,
        "prompts": None if prompts is None else str(prompts),
        "measures": benchmark.measures(found, samples),
        "calls": {"model": asker.tally.document(), "classifier": judged.document()},
        "continuations": [each.document() for each in found],
    }
    code = finish(bench, document, as_json=json, show=show_measures)
    if code != EXIT_DONE:
        raise typer.Exit(code)


def _is_rubric(registry: PluginRegistry, name: str) -> bool:
    """Return whether ``name`` is a rubric and not a scorer; UnknownNameError if it is neither."""
    from influence_cli.scoring.rubric_files import meant_by, shipped_rubrics

    if meant_by(name, shipped_rubrics()):
        return True
    scorers = [offer.component.name for offer in registry.offers("scorer")]
    if name.partition("/")[0] not in scorers:
        raise UnknownNameError("rubric or scorer", name, [*shipped_rubrics(), *scorers])
    return False


def _classifier(registry: PluginRegistry, bench: Bench, name: str, seed: int, tally: CallTally) -> Classifier:
    from influence_cli.benchmarking.toxicity import RubricClassifier, ScorerClassifier
    from influence_cli.scoring.judging import Asking
    from influence_cli.scoring.rubric_files import pick_rubrics
    from influence_cli.sittings.score.resolving import named_scorer

    if "judge" in bench.models:
        (rubric,) = pick_rubrics([name], [])
        return RubricClassifier(rubric, bench.models["judge"], Asking(seed=seed), tally=tally)
    scorer, _, wanted = name.partition("/")
    return ScorerClassifier(named_scorer(registry, scorer, ""), wanted or None)
