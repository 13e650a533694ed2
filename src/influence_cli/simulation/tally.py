"""What a run has used and done so far, and when it must stop.

Invariant: the tally is changed only from the event loop that runs the conversations; displays read it when they like.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from influence_cli.errors import FailureKind
from influence_cli.schemas.configs import Budget
from influence_cli.schemas.messages import Role
from influence_cli.schemas.records import CallRecord, TrajectoryEnd

StopReason = Literal["signal", "cost", "tokens", "alike", "error"]

FATAL_KINDS: frozenset[FailureKind] = frozenset({"auth", "not_found", "quota"})
"""Failures that no other conversation will escape."""
PASSING_KINDS: frozenset[FailureKind] = frozenset({"rate_limited", "server_error", "connection", "timeout"})
"""Failures that may be over when the same is asked again."""
_FATAL_AFTER = 3


class Stoppable(Protocol):
    """A tally that remembers why its work was stopped."""

    stop: Any


def used_up(stop: Literal["cost", "tokens"], budget: Budget) -> str:
    """Return the words on a budget that ended a run."""
    limit = f"${budget.cost:g}" if stop == "cost" else f"{budget.tokens:,} tokens"
    return f"the budget of {limit} is used up"


@dataclass
class RoleTally:
    """Calls of one role: counts, tokens, and seconds summed over calls."""

    calls: int = 0
    requests: int = 0
    failed: int = 0
    cached: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    latency: float = 0.0

    def add(self, call: CallRecord) -> None:
        """Count ``call``."""
        self.calls += 1
        self.requests += call.requests
        self.failed += call.error not in (None, "cancelled", "unusable")
        self.cached += call.cached
        self.prompt_tokens += call.prompt_tokens
        self.cached_tokens += call.cached_tokens
        self.completion_tokens += call.completion_tokens
        self.latency += call.latency


@dataclass
class Tally:
    """Counters of a run; ``earlier_*`` is what a resumed run had used before."""

    total: int
    budget: Budget = field(default_factory=Budget)
    stop_after_alike: int = 20
    earlier_done: int = 0
    earlier_tokens: int = 0
    earlier_cost: float = 0.0
    started: float = field(default_factory=time.monotonic)
    active: int = 0
    complete: int = 0
    failed: int = 0
    turns: int = 0
    speculations_dropped: int = 0
    unusable: Counter[Role] = field(default_factory=Counter)
    failures: Counter[tuple[Role | None, FailureKind]] = field(default_factory=Counter)
    ratings: int = 0
    rating_sum: float = 0.0
    roles: dict[Role, RoleTally] = field(default_factory=dict)
    cost: float = 0.0
    cached_answer_tokens: int = 0
    unpriced_calls: int = 0
    stop: StopReason | None = None
    last_failure: str = ""

    @property
    def done(self) -> int:
        """Conversations that ended, one way or the other, in this and earlier sittings."""
        return self.earlier_done + self.complete + self.failed

    @property
    def tokens(self) -> int:
        """Tokens of prompts and replies, earlier sittings included, answers from the cache not."""
        used = sum(role.prompt_tokens + role.completion_tokens for role in self.roles.values())
        return self.earlier_tokens + used - self.cached_answer_tokens

    @property
    def total_cost(self) -> float:
        """US dollars, earlier sittings included; calls without a known price are not in it."""
        return self.earlier_cost + self.cost

    def add_call(self, call: CallRecord) -> None:
        """Count ``call`` and stop the run if it crossed a budget."""
        self.roles.setdefault(call.role, RoleTally()).add(call)
        if call.cached:
            self.cached_answer_tokens += call.prompt_tokens + call.completion_tokens
        if call.cost is None:
            self.unpriced_calls += 1
        else:
            self.cost += call.cost
        self.check_budget()

    def check_budget(self) -> None:
        """Stop the run if a budget is used up; a resumed run may have used it up before it begins."""
        if self.stop is not None:
            return
        if self.budget.cost is not None and self.total_cost >= self.budget.cost:
            self.stop = "cost"
        elif self.budget.tokens is not None and self.tokens >= self.budget.tokens:
            self.stop = "tokens"

    def add_rating(self, rating: float) -> None:
        """Count a usable rating."""
        self.ratings += 1
        self.rating_sum += rating

    def add_end(self, end: TrajectoryEnd, role: Role | None) -> None:
        """Count a conversation's end; stop the run if all so far failed in one way. ``role``: whose call failed."""
        if end.status == "complete":
            self.complete += 1
            return
        self.failed += 1
        kind = end.failure or "internal"
        self.failures[role, kind] += 1
        self.last_failure = end.detail or kind
        alike = len(self.failures) == 1 and self.complete == 0 and self.earlier_done == 0
        limit = _FATAL_AFTER if kind in FATAL_KINDS else self.stop_after_alike
        if alike and self.failed >= limit and self.stop is None:
            self.stop = "alike"
