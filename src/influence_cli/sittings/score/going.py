"""Running a sitting of scoring, with signals, progress and a log."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from itertools import islice
from typing import Any

from influence_cli.errors import InfluenceError
from influence_cli.listening import Listener
from influence_cli.plugins.registry import PluginRegistry
from influence_cli.scoring.estimating import ScoreEstimate, estimate_scores, known_scores
from influence_cli.scoring.judging import Asking
from influence_cli.scoring.running import ScoreTally, missing
from influence_cli.scoring.shards import count_calls_since
from influence_cli.scoring.sitting import ScoreRequest, ScoreResult, ScoreSitting
from influence_cli.sharding.gathering import gather_shards
from influence_cli.sharding.scoring import score_in_shards
from influence_cli.sharding.splitting import Sharding
from influence_cli.simulation.models import EMBEDDED_MINIMUM_MASS, EMBEDDED_NOTE, backends_of
from influence_cli.sittings.logs import logged
from influence_cli.sittings.score.resolving import Resolved, load_models
from influence_cli.sittings.simulate import IN_TIME, stopping
from influence_cli.sittings.stops import nothing_begun
from influence_cli.store.beats import EVERY, beat_file, write_beat
from influence_cli.store.queries import conversation_counts
from influence_cli.store.reader import RunReader

_LOOKED_AT = 256
"""Conversations whose questions are counted; what more there are is reckoned from these."""


def estimated(resolved: Resolved, request: ScoreRequest) -> ScoreEstimate:
    """Return what a sitting would ask at most."""
    return _estimate(resolved, request)


def _estimate(resolved: Resolved, request: ScoreRequest) -> ScoreEstimate:
    with RunReader(resolved.directory) as reader:
        trajectories = islice(reader.numbered(finished=True), request.limit)
        return estimate_scores(trajectories, resolved.plan.items, request.asking, known_scores(reader))


def make_ready(
    registry: PluginRegistry, resolved: Resolved, asking: Asking, limit: int | None, heard: Listener, *, load: bool
) -> None:
    """Say what is to be asked, once for all shards, and ``load`` the models unless others ask them."""
    if resolved.directory.shard is None:
        _tell_asked(resolved, asking, limit, heard)
    if load:
        with nothing_begun():
            load_models(registry, resolved, heard)


def _tell_asked(resolved: Resolved, asking: Asking, limit: int | None, heard: Listener) -> None:
    """Say who judges and how many questions there are, which is reckoned from the first conversations of a long run."""
    plan = replace(resolved.plan, asked=set(), homeless=set())
    asked = [*plan.judges, *([plan.user] if plan.user else [])]
    if not asked:
        return
    with RunReader(resolved.directory) as reader:
        complete = conversation_counts(reader)["complete"]
        total = min(complete, limit or complete)
        looked_at = islice(reader.numbered(finished=True), min(total, _LOOKED_AT))
        found = missing(looked_at, plan.items, asking, known_scores(reader), ScoreTally())
        questions = round(sum(len(group) for group in found) * total / min(total, _LOOKED_AT))
    about = "about " if total > _LOOKED_AT else ""
    judges = ", ".join(dict.fromkeys(str(model.name) for model in plan.judges))
    default = " (--judge names another)" if plan.judges and not resolved.wanted.judges else ""
    who = [f"Judge: {judges}{default}"] if judges else []
    who += [f"User: {plan.user.name}"] if plan.user else []
    heard.say(f"{'; '.join(who)}. To ask: {about}{questions:,} questions on {total:,} conversations.")
    if any(model.minimum_mass == EMBEDDED_MINIMUM_MASS for model in asked):
        heard.say(EMBEDDED_NOTE)


def refuse_whole(in_shards: bool, *, batch: bool, control: bool) -> None:
    """Raise InfluenceError for what cannot be split."""
    if in_shards and (batch or control):
        raise InfluenceError("Batches and controls belong to the whole run.", hint="Leave out the shards.")


def have_scores(
    resolved: Resolved,
    request: ScoreRequest,
    sharding: Sharding | None,
    heard: Listener,
    spent_since: float | None = None,
) -> ScoreResult:
    """Score what is missing, here (:func:`sit`) or by shards; return what came of it."""
    if sharding is None:
        return sit(resolved, request, heard, spent_since)
    with logged(resolved.directory.path / "logs", heard.say):
        return score_in_shards(resolved.directory, request, resolved.arguments(request), sharding, heard)


def sit(resolved: Resolved, request: ScoreRequest, heard: Listener, spent_since: float | None = None) -> ScoreResult:
    """Score what is missing; return what came of it.

    Where the run's directory is of a shard, it tells how far it is; what scores took from ``spent_since`` on, in seconds
    of the epoch, counts against the budget.
    """
    if request.batch:
        _check_batch_budget(resolved, request)
    if resolved.directory.shard is None:
        gather_shards(resolved.directory)
    with logged(resolved.directory.path / "logs", heard.say), heard.progress() as advance:
        sitting = ScoreSitting(resolved.directory, request, advance)
        if spent_since is not None and resolved.directory.database.is_file():
            with RunReader(resolved.directory) as reader:
                count_calls_since(reader, sitting.tally, spent_since)
        return asyncio.run(_sit(resolved, sitting, heard))


async def _sit(resolved: Resolved, sitting: ScoreSitting, heard: Listener) -> ScoreResult:
    work = asyncio.ensure_future(sitting.score())
    with stopping(work, sitting.tally, sitting.stop, IN_TIME, heard):
        beating = None if resolved.directory.shard is None else asyncio.create_task(_beat(resolved, sitting.tally))
        ended = False
        try:
            result = await work
            ended = True
        except asyncio.CancelledError:
            return ScoreResult(sitting.tally)
        else:
            return result
        finally:
            if beating is not None:
                beating.cancel()
                await asyncio.gather(beating, return_exceptions=True)
                _tell(resolved, sitting.tally, ended=ended, failed=dict(sitting.tally.failed))
            for backend in backends_of(resolved.models()):
                await backend.aclose()


async def _beat(resolved: Resolved, tally: ScoreTally) -> None:
    """Tell the counters of a shard until cancelled."""
    while True:
        _tell(resolved, tally)
        await asyncio.sleep(EVERY)


def _tell(resolved: Resolved, tally: ScoreTally, **more: Any) -> None:
    names = ("done", "skipped", "calls", "quotes_dropped", "stop")
    write_beat(beat_file(resolved.directory), {**{name: getattr(tally, name) for name in names}, **more})


def _check_batch_budget(resolved: Resolved, request: ScoreRequest) -> None:
    """Raise InfluenceError if the batch may take more than allowed: it cannot be stopped half way."""
    budget = resolved.config.budget
    if budget.cost is None and budget.tokens is None:
        return
    found = _estimate(resolved, request)
    if budget.tokens is not None and found.tokens > budget.tokens:
        raise InfluenceError(f"The batch may take {found.tokens:,} tokens.", hint="Raise --max-tokens or set --limit.")
    if budget.cost is not None and (found.cost or 0.0) > budget.cost:
        raise InfluenceError(f"The batch may cost ${found.cost:,.2f}.", hint="Raise --max-cost or set --limit.")
