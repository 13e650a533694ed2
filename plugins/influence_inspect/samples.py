"""A conversation as a sample of Inspect's: what people look at in Inspect's own places, and everything else as data.

``metadata`` names the situation, ``scores`` hold what the judges said as numbers, and ``store["influence"]`` (schema
``influence.inspect/1``) the rest, from which ``influence import`` makes the conversation again as it was.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import Any

from inspect_ai.model import ModelUsage
from inspect_ai.scorer import Score

from influence_cli.api import CallRecord, EpisodeRecord, JudgementRecord, ScoreRecord, TrajectoryEnd
from influence_inspect.messages import OURS

SCHEMA = "influence.inspect/1"
PREFERENCE, VETO = "preference", "veto"
_MEANING = {
    PREFERENCE: "Mean over replies of the preference model's expected rating.",
    VETO: "Mean over replies of the veto model's expected answer.",
}


def sample_id(record: EpisodeRecord, *, several: bool = False) -> str:
    """Return what names a conversation in its log, its sample (Inspect's epoch) left out.

    ``several``: whether the log holds more than one environment.
    """
    key = record.key
    name = f"{key.environment}/{key.scenario}/{key.initial_state}" if several else f"{key.scenario}/{key.initial_state}"
    return f"{name}@{key.iteration}" if key.iteration else name


def sample_metadata(record: EpisodeRecord) -> dict[str, Any]:
    """Return who talks about what: the situation and the kind of user."""
    key = record.key.model_dump(mode="json")
    return {**key, **record.model_dump(mode="json", include={"population", "cue", "split", "profile"})}


def stored_data(
    record: EpisodeRecord,
    judgements: Iterable[JudgementRecord],
    calls: Iterable[CallRecord],
    end: TrajectoryEnd | None,
) -> dict[str, Any]:
    """Return what a sample's store keeps of a conversation."""
    return {
        "schema": SCHEMA,
        "episode": record.model_dump(mode="json"),
        "judgements": [each.model_dump(mode="json") for each in judgements],
        "calls": [each.model_dump(mode="json") for each in calls],
        "end": end.model_dump(mode="json") if end else None,
    }


def role_score(role: str, judgements: Sequence[JudgementRecord]) -> Score | None:
    """Return the score that ``role`` (preference or veto) gives a conversation; None if it was never asked.

    Unusable judgements enter no figure: without a usable one the score is unscored.
    """
    asked = [each for each in judgements if each.role == role]
    if not asked:
        return None
    values = {each.turn: each.expected for each in asked if each.usable and each.expected is not None}
    metadata = {OURS: [], "by_turn": {str(turn): values.get(turn) for turn in sorted({j.turn for j in asked})}}
    if not values:
        return Score.unscored(reason="grader_failed", explanation="No judgement was usable.", metadata=metadata)
    return Score(value=fmean(values.values()), explanation=_MEANING[role], metadata=metadata)


def rubric_scores(scores: Iterable[ScoreRecord]) -> dict[str, Score]:
    """Return one score for each rubric and judge: the mean over what was judged; its records as metadata."""
    groups: defaultdict[tuple[str, str, str], list[ScoreRecord]] = defaultdict(list)
    for score in scores:
        groups[score.rubric, score.judge, score.method].append(score)
    rubrics = [rubric for rubric, _, _ in groups]
    found = {}
    for (rubric, judge, method), records in groups.items():
        alone = rubrics.count(rubric) == 1 and rubric not in _MEANING
        found[rubric if alone else f"{rubric} ({judge}, {method})"] = _rubric_score(records)
    return found


def _rubric_score(records: Sequence[ScoreRecord]) -> Score:
    values = [each.value for each in records if each.usable and each.value is not None]
    metadata = {OURS: [each.model_dump(mode="json") for each in records]}
    said = "\n".join(each.rationale for each in records if each.rationale) or None
    if not values:
        reasons = sorted({each.failure or "unusable" for each in records})
        return Score.unscored(reason="grader_failed", explanation=said or ", ".join(reasons), metadata=metadata)
    return Score(value=fmean(values), explanation=said, metadata=metadata)


def model_usage(calls: Iterable[CallRecord], by: str) -> dict[str, ModelUsage]:
    """Return what was used, by ``model`` or ``role``; Inspect counts cached tokens apart."""
    used: dict[str, ModelUsage] = {}
    for call in calls:
        usage = ModelUsage(
            input_tokens=call.prompt_tokens - call.cached_tokens,
            output_tokens=call.completion_tokens,
            total_tokens=call.prompt_tokens + call.completion_tokens,
            input_tokens_cache_read=call.cached_tokens or None,
            total_cost=call.cost,
        )
        name = str(getattr(call, by))
        used[name] = used[name] + usage if name in used else usage
    return used
