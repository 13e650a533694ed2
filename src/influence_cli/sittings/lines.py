"""How far work is, or what it is about, in a line."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from influence_cli.sanitize import visible
from influence_cli.settings import as_yaml

if TYPE_CHECKING:
    from influence_cli.scoring.running import ScoreTally
    from influence_cli.simulation.tally import Tally


def line(tally: Tally) -> str:
    """Return the state of the run in one line."""
    parts = [
        f"{tally.done}/{tally.total} conversations",
        f"{tally.active} in progress",
        f"{tally.turns} turns",
        f"{sum(role.calls for role in tally.roles.values())} calls",
        f"{rate(tally):,.0f} tokens/s",
    ]
    if tally.ratings:
        parts.append(f"mean rating of turns {tally.rating_sum / tally.ratings:.2f}")
    if tally.cost:
        parts.append(f"${tally.total_cost:.2f}")
    if tally.failed:
        parts.append(f"{tally.failed} failed")
    if sum(tally.unusable.values()):
        parts.append(f"{sum(tally.unusable.values())} unusable judgements")
    parts.append(f"left {remaining(tally)}")
    return "; ".join(parts)


def score_line(tally: ScoreTally) -> str:
    """Return what asking for scores came to, in one line."""
    parts = [f"{tally.done:,} scores asked for"]
    if tally.skipped:
        parts.append(f"{tally.skipped:,} known before")
    if tally.failed:
        parts.append(f"{tally.failed.total():,} failed")
    if tally.unusable:
        parts.append(f"{tally.unusable:,} unusable")
    return "; ".join(parts)


def rate(tally: Tally) -> float:
    """Return tokens a second of this sitting, cached prompt tokens not included."""
    elapsed = max(time.monotonic() - tally.started, 1e-9)
    used = sum(r.prompt_tokens - r.cached_tokens + r.completion_tokens for r in tally.roles.values())
    return used / elapsed


def remaining(tally: Tally) -> str:
    """Return the time left at the pace of this sitting, or a question mark before the first end."""
    now = tally.complete + tally.failed
    if not now:
        return "?"
    elapsed = time.monotonic() - tally.started
    return clock(elapsed / now * (tally.total - tally.done))


def clock(seconds: float) -> str:
    """Return ``seconds`` as h:mm:ss or m:ss."""
    whole = max(0, round(seconds))
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"


def number(value: Any) -> str:
    """Return a value as a person reads it: four digits of a number, text as it is, on one line."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return visible(value if isinstance(value, str) else as_yaml(value), newlines=False)
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def parameters_text(parameters: Mapping[str, Any]) -> str:
    """Return ``name=value`` of each parameter."""
    return ", ".join(f"{name}={number(value)}" for name, value in parameters.items())
