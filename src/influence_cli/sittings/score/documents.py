"""What a sitting of scoring, or an estimate of one, came to: the documented objects."""

from __future__ import annotations

from typing import Any

from influence_cli.scoring.estimating import ScoreEstimate
from influence_cli.scoring.sitting import ScoreRequest, ScoreResult
from influence_cli.sittings.score.resolving import Resolved


def document(resolved: Resolved, request: ScoreRequest, result: ScoreResult) -> dict[str, Any]:
    """Return the documented object ``influence.score/1``."""
    tally = result.tally
    stopped = tally.stop or result.given_up or None
    return {
        "schema": "influence.score/1",
        "run": str(resolved.directory.path),
        "state": "stopped" if stopped else "waiting" if result.batches and result.batches.waiting else "done",
        "reason": stopped,
        "rubrics": sorted(request.plan.asked),
        "scorers": [named.name for named in request.scorers],
        "judges": [str(model.name) for model in request.plan.judges],
        "user": str(request.plan.user.name) if request.plan.user else None,
        "method": _method(request),
        "scores": {
            "asked": tally.done,
            "known": tally.skipped,
            "unusable": tally.unusable,
            "failed": dict(tally.failed),
            "quotes_dropped": tally.quotes_dropped,
            "computed": result.computed.new,
            "scorers_failed": dict(result.computed.failed),
            "without_environment": result.homeless,
        },
        "calls": {
            "calls": tally.calls,
            "requests": tally.requests,
            "prompt_tokens": tally.prompt_tokens,
            "cached_tokens": tally.cached_tokens,
            "completion_tokens": tally.completion_tokens,
            "seconds_per_call": tally.latency / tally.calls if tally.calls else None,
            "cost": tally.cost if not tally.unpriced_calls else None,
        },
        "batches": _batches(result),
        "control": _control(result),
        "figures": result.figures,
        "disagreements": result.disagreements,
        "shifts": result.shifts,
    }


def estimate_document(resolved: Resolved, request: ScoreRequest, estimate: ScoreEstimate) -> dict[str, Any]:
    """Return the documented object ``influence.score.dry-run/1``."""
    return {
        "schema": "influence.score.dry-run/1",
        "run": str(resolved.directory.path),
        "method": _method(request),
        "rubrics": sorted(request.plan.asked),
        "known": estimate.known,
        "models": {name: vars(entry) for name, entry in estimate.models.items()},
        "tokens": estimate.tokens,
        "cost": estimate.cost,
    }


def _method(request: ScoreRequest) -> str:
    asking = request.asking
    turned = [name for name, wanted in (("orders", asking.orders), ("directions", asking.directions)) if wanted]
    votes = str(asking.votes) if asking.method == "vote" else ""
    return "+".join([f"{asking.method}{votes}", *turned])


def _batches(result: ScoreResult) -> dict[str, Any] | None:
    if result.batches is None:
        return None
    waiting = {name: vars(progress) for name, progress in result.batches.waiting.items()}
    return {"submitted": result.batches.submitted, "collected": result.batches.collected, "waiting": waiting}


def _control(result: ScoreResult) -> dict[str, Any] | None:
    if result.control is None:
        return None
    tally = result.control
    return {"complete": tally.complete, "failed": tally.failed, "tokens": tally.tokens, "cost": tally.cost}
