"""Which trajectories are learnt from: a pure function of their rewards and the settings.

Invariant: within a group every one of the best has a higher reward than any of the worst, by the minimum spread at
least; nothing is among both; ties are broken by a hash of what the conversation is, never by its place in a list.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from influence_cli.errors import InfluenceError
from influence_cli.schemas.configs import SelectionConfig
from influence_cli.schemas.training import RowsWanted
from influence_cli.seeding import derive_seed, unit_draw

Why = Literal["alone", "alike", "vetoed"]
"""Why a group gives nothing: too few conversations in it; rewards too near each other; none that no veto forbids."""

_WIDER = {"initial-state": "scenario", "scenario": "environment"}
"""Where to look for the best more widely than at a level."""


@dataclass(frozen=True)
class Candidate:
    """A finished conversation with its reward; ``veto`` is its mean veto, None where none was asked or usable."""

    episode_id: int
    environment: str
    scenario: str
    initial_state: str
    sample: int
    population: str | None
    reward: float
    veto: float | None = None

    def hash(self, seed: int) -> int:
        """Return what breaks ties: determined by ``seed`` and by what the conversation is."""
        return derive_seed("tie", seed, self.environment, self.scenario, self.initial_state, self.sample)

    def group(self, level: str) -> tuple[str, ...]:
        """Return whom it is compared with; from one initial state, those with one kind of user."""
        if level == "environment":
            return (self.environment,)
        if level == "scenario":
            return (self.environment, self.scenario)
        return (self.environment, self.scenario, self.initial_state, self.population or "")


@dataclass(frozen=True)
class Group:
    """The best and the worst among conversations that were compared, each from the extreme inwards."""

    best: tuple[Candidate, ...]
    worst: tuple[Candidate, ...]
    why: Why | None = None


@dataclass(frozen=True)
class Selection:
    """What is learnt from; groups that give nothing are counted by reason in ``empty``."""

    groups: tuple[Group, ...] = ()
    vetoed: int = 0
    empty: Counter[Why] = field(default_factory=Counter)

    @property
    def best(self) -> tuple[Candidate, ...]:
        """All of the best."""
        return tuple(each for group in self.groups for each in group.best)

    @property
    def worst(self) -> tuple[Candidate, ...]:
        """All of the worst."""
        return tuple(each for group in self.groups for each in group.worst)


def select(candidates: Sequence[Candidate], config: SelectionConfig, *, wants: RowsWanted, seed: int) -> Selection:
    """Return the best and, where ``wants`` asks for them, the worst of every group.

    Raises InfluenceError, in one line, if there is nothing to learn from: too few trajectories, all rewards equal, all
    vetoed.
    """
    if config.how == "random":
        candidates = [_at_random(each, seed) for each in candidates]
        config = config.model_copy(update={"minimum_spread": 0.0})
    level = "initial-state" if wants == "pairs" else config.level
    grouped: dict[tuple[str, ...], list[Candidate]] = {}
    for candidate in candidates:
        grouped.setdefault(candidate.group(level), []).append(candidate)
    found = [_of_group(grouped[key], config, wants=wants, seed=seed) for key in sorted(grouped)]
    empty = Counter(group.why for group in found if group.why is not None)
    vetoed = count_vetoed(candidates, config)
    selection = Selection(tuple(group for group in found if group.best), vetoed, empty)
    if not selection.groups:
        raise _nothing(candidates, config, level, vetoed, empty, wider=None if wants == "pairs" else _WIDER.get(level))
    return selection


def _of_group(group: Sequence[Candidate], config: SelectionConfig, *, wants: RowsWanted, seed: int) -> Group:
    kept = [each for each in group if not _is_vetoed(each, config)]
    bad = group if config.vetoed_as_negatives else kept
    if not kept:
        return Group((), (), "vetoed")
    if len(bad) < 2:
        return Group((), (), "alone")
    count = share_of(len(kept), config)
    best = sorted(kept, key=lambda each: (-each.reward, each.hash(seed)))[:count]
    chosen = {each.episode_id for each in best}
    rest = [each for each in bad if each.episode_id not in chosen]
    worst = sorted(rest, key=lambda each: (each.reward, each.hash(seed)))[:count]
    lowest = min(each.reward for each in bad)
    if wants == "best":
        best = [each for each in best if _apart(each.reward, lowest, config.minimum_spread)]
        worst = []
    else:
        best, worst = _spread(best, worst, config.minimum_spread)
    return Group(tuple(best), tuple(worst), None if best else "alike")


def count_vetoed(candidates: Sequence[Candidate], config: SelectionConfig) -> int:
    """Return how many conversations may not be among the best."""
    return sum(_is_vetoed(each, config) for each in candidates)


def share_of(size: int, config: SelectionConfig) -> int:
    """Return how many of a group of ``size`` are best, where there are as many."""
    return config.count if config.count is not None else math.ceil(size * config.fraction - 1e-9)


def _spread(best: list[Candidate], worst: list[Candidate], least: float) -> tuple[list[Candidate], list[Candidate]]:
    """Return both without the innermost that are too near each other; as many of each where there are."""
    while best and worst and not _apart(best[-1].reward, worst[-1].reward, least):
        inner = max(len(best), len(worst))
        best = best[:-1] if len(best) == inner else best
        worst = worst[:-1] if len(worst) == inner else worst
    return (best, worst) if best and worst else ([], [])


def _apart(high: float, low: float, least: float) -> bool:
    return high > low and high - low >= least


def _is_vetoed(candidate: Candidate, config: SelectionConfig) -> bool:
    return config.veto_level is not None and candidate.veto is not None and candidate.veto >= config.veto_level


def _at_random(candidate: Candidate, seed: int) -> Candidate:
    names = (candidate.environment, candidate.scenario, candidate.initial_state, candidate.sample)
    drawn = unit_draw("random", seed, *names)
    return Candidate(candidate.episode_id, *names, population=candidate.population, reward=drawn, veto=candidate.veto)


def _nothing(
    candidates: Sequence[Candidate],
    config: SelectionConfig,
    level: str,
    vetoed: int,
    empty: Counter[Why],
    *,
    wider: str | None,
) -> InfluenceError:
    """Return what to say where no group gives anything: the commonest reason, and its mend; ``wider`` is a level."""
    or_wider = f", or compare more widely: selection.level={wider}" if wider else ""
    count = f"{len(candidates):,} rated conversation{'' if len(candidates) == 1 else 's'}"
    if len(candidates) < 2:
        return InfluenceError(f"Too few to select from: {count}.", hint="Raise --n or --samples.")
    if vetoed == len(candidates):
        return InfluenceError(
            f"All {count} are vetoed: none has a mean veto below {config.veto_level:g}.",
            hint="Raise selection.veto_level, or set it to null to let vetoed ones be learnt from.",
        )
    if len({each.reward for each in candidates}) == 1:
        return InfluenceError(
            f"All {count} have the same reward ({candidates[0].reward:g}): nothing is better than anything.",
            hint="Ask another preference model, or more conversations.",
        )
    if empty["alike"]:
        spread = config.minimum_spread
        by = f" by {spread:g} or more" if spread else ""
        mend = "Lower selection.minimum_spread" if spread else "Ask another preference model"
        return InfluenceError(f"In no group of {count} do rewards differ{by}.", hint=f"{mend}{or_wider}.")
    return InfluenceError(
        f"No group by {level} holds two conversations to compare, among {count}"
        f"{f' of which {vetoed:,} are vetoed' if vetoed else ''}.",
        hint=f"Raise --samples{or_wider}.",
    )
