"""What scoring will take, before it is begun."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from influence_cli.schemas.requests import Usage
from influence_cli.scoring.judging import RATIONALE_TOKENS, Asking
from influence_cli.scoring.probes import Rows
from influence_cli.scoring.questions import ScoreKey
from influence_cli.scoring.running import ItemsOf, Numbered, ScoreTally, Task, missing
from influence_cli.simulation.estimate import CHARACTERS_PER_TOKEN
from influence_cli.simulation.models import RoleModel, unpriced

_VOTE_TOKENS = 8


@dataclass
class ModelEstimate:
    """Scores, calls and tokens of one model at most; ``cost`` is None where it has no price."""

    scores: int = 0
    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float | None = 0.0


@dataclass
class ScoreEstimate:
    """What is asked of each model, and how many scores are there already."""

    known: int = 0
    models: dict[str, ModelEstimate] = field(default_factory=dict)
    asked: dict[str, RoleModel] = field(default_factory=dict)

    @property
    def unpriced(self) -> tuple[str, ...]:
        """Models that may cost money and have no price."""
        return unpriced(self.asked.values())

    @property
    def tokens(self) -> int:
        """Tokens of all models."""
        return sum(entry.prompt_tokens + entry.completion_tokens for entry in self.models.values())

    @property
    def cost(self) -> float | None:
        """US dollars of all models; None if one has no price."""
        costs = [entry.cost for entry in self.models.values()]
        return None if any(cost is None for cost in costs) else sum(cost or 0.0 for cost in costs)


def known_scores(run: Rows) -> set[ScoreKey]:
    """Return what a run has scored and did not fail, read without writing to it."""
    query = "SELECT episode_id, turn, rubric_hash, judge, method FROM score WHERE failure IS NULL"
    return {(row[0], row[1], row[2], row[3], row[4]) for row in run.rows(query)}


def estimate_scores(
    trajectories: Iterable[Numbered], items_of: ItemsOf, asking: Asking, known: set[ScoreKey]
) -> ScoreEstimate:
    """Return what is missing and what it takes at most; prompts that a server has read before are counted in full."""
    tally = ScoreTally()
    found = ScoreEstimate()
    for group in missing(trajectories, items_of, asking, known, tally):
        for task in group:
            _add(found, task, asking)
    found.known = tally.skipped
    return found


def _add(found: ScoreEstimate, task: Task, asking: Asking) -> None:
    item, model = task
    entry = found.models.setdefault(str(model.name), ModelEstimate())
    found.asked[str(model.name)] = model
    entry.scores += 1
    times = asking.votes if asking.method == "vote" else 1
    reply = {"distribution": 1, "vote": _VOTE_TOKENS, "structured": RATIONALE_TOKENS}[asking.method]
    for way in asking.ways(item):
        characters = sum(len(message.content) for message in way.prompt())
        usage = Usage(prompt_tokens=times * round(characters / CHARACTERS_PER_TOKEN), completion_tokens=times * reply)
        entry.calls += times
        entry.prompt_tokens += usage.prompt_tokens
        entry.completion_tokens += usage.completion_tokens
        cost = model.cost(usage)
        entry.cost = None if cost is None or entry.cost is None else entry.cost + cost
