"""How a sitting of a simulation ended: its state, its exit code and why, for people and as a documented object."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from influence_cli.errors import EXIT_DONE, EXIT_FAILURES, EXIT_STOPPED, EXIT_USER
from influence_cli.schemas.configs import SimulationConfig
from influence_cli.schemas.messages import Role
from influence_cli.schemas.records import RunState
from influence_cli.simulation.models import EMBEDDED_MINIMUM_MASS, EMBEDDED_NOTE, JUDGES, RoleModel
from influence_cli.simulation.tally import FATAL_KINDS, Tally, used_up


@dataclass(frozen=True)
class Summary:
    """How a sitting ended."""

    path: Path
    state: RunState
    tally: Tally
    mean_rating: float | None
    """Over the complete conversations of all sittings, each by its mean over turns: what reports give."""
    elapsed: float
    exit_code: int
    reason: str = ""
    notes: tuple[str, ...] = field(default=())

    def document(self) -> dict[str, Any]:
        """Return the summary as the documented object ``influence.simulate/1``."""
        tally = self.tally
        return {
            "schema": "influence.simulate/1",
            "run": str(self.path),
            "state": self.state,
            "reason": self.reason or None,
            "conversations": {
                "total": tally.total,
                "complete": tally.complete,
                "failed": tally.failed,
                "earlier": tally.earlier_done,
            },
            "turns": tally.turns,
            "mean_rating": self.mean_rating,
            "mean_rating_of_turns": tally.rating_sum / tally.ratings if tally.ratings else None,
            "unusable": dict(tally.unusable),
            "failures": [
                {"role": role, "kind": kind, "count": count} for (role, kind), count in tally.failures.most_common()
            ],
            "speculations_dropped": tally.speculations_dropped,
            "roles": {name: vars(role) for name, role in tally.roles.items()},
            "tokens": tally.tokens,
            "cost": tally.total_cost if tally.unpriced_calls == 0 else None,
            "seconds": round(self.elapsed, 3),
            "notes": list(self.notes),
        }


def summarised(
    path: Path,
    state: RunState,
    tally: Tally,
    mean_rating: float | None,
    config: SimulationConfig,
    elapsed: float,
    models: Mapping[Role, RoleModel],
) -> Summary:
    """Return how a sitting ended, with its exit code and why."""
    reason, code = "", EXIT_DONE
    fatal = not tally.complete and all(kind in FATAL_KINDS for _, kind in tally.failures)
    if tally.stop == "alike":
        reason = f"all conversations failed alike: {tally.last_failure.rstrip('.')}"
        code = EXIT_USER if fatal else EXIT_FAILURES
    elif state == "stopped" and tally.stop in ("cost", "tokens"):
        reason, code = used_up(tally.stop, config.budget), EXIT_STOPPED
    elif state == "stopped":
        reason, code = "stopped by a signal", EXIT_STOPPED
    elif state == "failed":
        allowed = f"more than the {config.max_failed_share:.0%} that max_failed_share allows"
        reason, code = (
            f"{tally.failed:,} of {tally.done:,} conversations failed, {allowed}",
            EXIT_USER if fatal else EXIT_FAILURES,
        )
    notes = tuple(dict.fromkeys(note for model in models.values() for note in getattr(model.backend, "notes", ())))
    asked = [models[role] for role in JUDGES if role in models and role in tally.roles]
    if any(model.minimum_mass == EMBEDDED_MINIMUM_MASS for model in asked):
        notes = (*notes, EMBEDDED_NOTE)
    return Summary(path, state, tally, mean_rating, elapsed, code, reason, notes)
