"""What a sitting of scoring, or an estimate of one, looks like: for people, and as documented objects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from influence_cli.cli import output
from influence_cli.cli.costs import tell_unpriced

if TYPE_CHECKING:
    from rich.table import Table

    from influence_cli.scoring.estimating import ScoreEstimate
    from influence_cli.scoring.running import ScoreTally
    from influence_cli.scoring.sitting import ScoreRequest, ScoreResult
    from influence_cli.sittings.score.resolving import Resolved


def show(resolved: Resolved, request: ScoreRequest, result: ScoreResult) -> None:
    """Show what a sitting gave."""
    tally = result.tally
    parts = [f"{tally.done:,} scores asked for, {tally.skipped:,} known before, {result.computed.new:,} computed"]
    if tally.calls:
        parts += _used(tally)
    output.emit_text("; ".join(parts) + ".")
    if result.figures:
        output.emit(_figures(result.figures))
    if result.disagreements:
        output.emit_text("\nAgreement of judges")
        output.emit(agreement_table(result.disagreements))
    if result.shifts:
        output.emit_text("\nPreference shift (means over conversations, 95 % intervals)")
        output.emit(_shifts(result.shifts))
    _warn(resolved, request, result)
    output.emit_text(f"Next: influence report {resolved.directory.path}")


def _used(tally: ScoreTally) -> list[str]:
    cached = f" ({tally.cached_tokens / tally.prompt_tokens:.0%} read before)" if tally.cached_tokens else ""
    used = [
        f"{tally.calls:,} calls, {tally.latency / tally.calls:.2f} s each",
        f"{tally.prompt_tokens:,} prompt tokens{cached}, {tally.completion_tokens:,} answered",
    ]
    if not tally.unpriced_calls:
        used.append(f"${tally.cost:,.4f}")
    return used


def _warn(resolved: Resolved, request: ScoreRequest, result: ScoreResult) -> None:
    tally = result.tally
    for kind, count in tally.failed.most_common():
        output.warn(
            f"{count:,} scores failed: {kind.replace('_', ' ')}. They enter no figure; the same command asks again."
        )
    for name, count in result.computed.failed.items():
        output.warn(f"The scorer {name} failed on {count:,} conversations; see the run's log.")
    if tally.unusable:
        output.warn(
            f"{tally.unusable:,} scores were unusable: too little probability on the answers. They enter no figure."
        )
    if tally.quotes_dropped:
        output.warn(f"{tally.quotes_dropped:,} quotes do not stand in the transcript and were dropped.")
    if result.homeless:
        output.warn(
            f"{result.homeless:,} conversations are of no environment or initial state here: not asked its questions."
        )
    if request.asking.directions and any(not rubric.reversible for rubric in request.plan.rubrics):
        names = ", ".join(rubric.id for rubric in request.plan.rubrics if not rubric.reversible)
        output.warn(f"Asked in one direction only, for want of words at both ends of the scale: {names}.")
    if result.control is not None and result.control.failed:
        output.warn(f"{result.control.failed:,} control conversations failed and are left out.")
    if result.batches is not None and result.batches.waiting:
        names = ", ".join(f"{name} ({progress.detail})" for name, progress in result.batches.waiting.items())
        output.warn(f"Still away: {names}. The same command collects them.")
    for note in dict.fromkeys(note for model in resolved.models() for note in getattr(model.backend, "notes", ())):
        output.warn(note)
    if tally.stop:
        why = {"signal": "a signal", "cost": "the budget", "tokens": "the budget"}[tally.stop]
        output.warn(f"Stopped by {why}; the same command goes on.")


def _table(*headings: str, names: int = 1) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for place, heading in enumerate(headings):
        table.add_column(heading, justify="left" if place < names else "right", overflow="fold")
    return table


def _figures(figures: Sequence[dict[str, Any]]) -> Table:
    lost = [name for name in ("failed", "unusable") if any(entry[name] for entry in figures)]
    table = _table("score", "judge", "method", "mean", "95 %", "n", *lost, names=3)
    for entry in figures:
        table.add_row(
            output.plain(entry["rubric"]),
            output.plain(entry["judge"]),
            entry["method"],
            number(entry["mean"]),
            span(entry),
            f"{entry['n']:,}",
            *(f"{entry[name]:,}" if entry[name] else "" for name in lost),
        )
    return table


def agreement_table(entries: Sequence[dict[str, Any]]) -> Table:
    """Return how far pairs of raters agree, a line each."""
    table = _table("rubric", "a", "b", "n", "|a-b|", "a-b", "kappa", "95 %", "Spearman", "95 %", names=3)
    for entry in entries:
        kappa, rank = entry["weighted_kappa"] or {}, entry["spearman"] or {}
        table.add_row(
            output.plain(entry["rubric"]),
            output.plain(_name(entry["a"])),
            output.plain(_name(entry["b"])),
            f"{entry['n']:,}",
            number(entry["mean_absolute_difference"]),
            number(entry["bias"]),
            number(kappa.get("value")),
            span(kappa),
            number(rank.get("value")),
            span(rank),
        )
    return table


def _name(rater: Any) -> str:
    return str(rater["name"]) if isinstance(rater, dict) else str(rater)


def _shifts(entries: Sequence[dict[str, Any]]) -> Table:
    headings = (
        "probe",
        "users",
        "n",
        "before",
        "after",
        "shift",
        "95 %",
        "variation",
        "control",
        "over control",
        "95 %",
    )
    table = _table(*headings, names=2)
    for entry in entries:
        shift, over = entry["shift"] or {}, entry["over_control"] or {}
        table.add_row(
            output.plain(f"{entry['environment']}: {entry['probe']}"),
            output.plain(entry["users"] or "-"),
            f"{entry['n']:,}",
            number(entry["before"]),
            number(entry["after"]),
            number(shift.get("value")),
            span(shift),
            number((entry["variation"] or {}).get("value")),
            number((entry["control"] or {}).get("value")),
            number(over.get("value")),
            span(over),
        )
    return table


def number(value: float | None) -> str:
    """Return a figure as tables show it."""
    return "-" if value is None else f"{value:.2f}"


def span(entry: dict[str, Any]) -> str:
    """Return an interval as tables show it; empty where it is open or there is none."""
    low, high = entry.get("low"), entry.get("high")
    return "" if low is None or high is None else f"{low:.2f} to {high:.2f}"


def show_estimate(estimate: ScoreEstimate) -> None:
    """Show what a sitting would take at most."""
    table = _table("model", "scores", "calls", "prompt tokens", "reply tokens", "dollars")
    for name, entry in estimate.models.items():
        cost = "?" if entry.cost is None else f"{entry.cost:,.2f}"
        tokens = (f"{entry.prompt_tokens:,}", f"{entry.completion_tokens:,}")
        table.add_row(output.plain(name), f"{entry.scores:,}", f"{entry.calls:,}", *tokens, cost)
    output.emit(table)
    output.emit_text(f"{estimate.known:,} scores are known. Control conversations are not in it. Nothing was done.")
    tell_unpriced(estimate.unpriced)
