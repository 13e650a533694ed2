"""What a conversation is worth to selection: its reward, who is asked for it, and the candidates of one iteration."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from influence_cli.environments.environment import Environment
from influence_cli.schemas.configs import SelectionConfig
from influence_cli.schemas.messages import Role
from influence_cli.schemas.records import Split
from influence_cli.scoring.plan import FIRST_PERSON, THIRD_PERSON, Plan
from influence_cli.scoring.rubric_files import pick_rubrics, shipped_rubrics
from influence_cli.simulation.models import RoleModel
from influence_cli.store.reader import RunReader
from influence_cli.training.selection import Candidate

_SCORES = (
    "SELECT s.episode_id, s.judge, s.method, avg(s.value) AS value FROM score s JOIN episode e ON e.id = s.episode_id"
    " WHERE e.iteration = coalesce(?, e.iteration) AND e.split = ? AND s.rubric = ? AND s.usable = 1"
    " AND s.value IS NOT NULL AND s.failure IS NULL GROUP BY s.episode_id, s.judge, s.method, s.rubric_hash"
    " ORDER BY max(s.ended), max(s.id)"
)
"""In order of time, so that of two wordings of a rubric the one asked last stands."""
_ENDS = (
    "SELECT e.id, e.environment, e.scenario, e.initial_state, e.sample, e.population, t.mean_rating, t.final_rating,"
    " t.mean_veto, (SELECT m.text FROM message m WHERE m.episode_id = e.id AND m.dropped = 0 AND m.speaker = 'agent'"
    " AND m.source = 'model' ORDER BY m.turn DESC, m.id DESC LIMIT 1) AS last"
    " FROM episode e JOIN trajectory t ON t.episode_id = e.id"
    " WHERE e.iteration = coalesce(?, e.iteration) AND e.split = ? AND t.status = 'complete' ORDER BY e.id"
)


@dataclass(frozen=True)
class Candidates:
    """The finished conversations of an iteration that have a reward, and how many have none."""

    rated: tuple[Candidate, ...]
    unrated: int


def candidates(run: RunReader, iteration: int | None, split: Split, config: SelectionConfig) -> Candidates:
    """Return the conversations of an iteration (None: of all) with their rewards; those without a usable one are counted."""
    scores = _scores(run, iteration, split, config)
    rated: list[Candidate] = []
    unrated = 0
    for row in run.rows(_ENDS, (iteration, split)):
        worth = _worth(row, scores, config)
        if worth is None:
            unrated += 1
            continue
        rated.append(
            Candidate(
                episode_id=row["id"],
                environment=row["environment"],
                scenario=row["scenario"],
                initial_state=row["initial_state"],
                sample=row["sample"],
                population=row["population"],
                reward=worth - config.length_penalty * len(row["last"] or ""),
                veto=row["mean_veto"],
            )
        )
    return Candidates(tuple(rated), unrated)


def score_name(config: SelectionConfig) -> str | None:
    """Return the score that is the reward; None where ratings given in the conversation are."""
    if config.reward == "whole":
        return THIRD_PERSON
    return (config.rubric or "").rpartition("/")[2] if config.reward == "score" else None


def is_mean_of_turns(config: SelectionConfig) -> bool:
    """Return whether the reward is the plain mean of ratings, so that each turn has a reward of its own."""
    return config.reward == "mean" and not config.length_penalty


def asked_scores() -> list[str]:
    """Return which scores a model is asked for and can be the reward; others are computed by a scorer."""
    return sorted([*shipped_rubrics(), FIRST_PERSON, THIRD_PERSON])


def reward_role(config: SelectionConfig) -> Role | None:
    """Return the role that is asked for the reward when a conversation is over; None where nobody is."""
    name = THIRD_PERSON if config.reward == "whole" else config.rubric if config.reward == "score" else None
    if name is None or name not in asked_scores():
        return None
    return "preference" if name == THIRD_PERSON else "user" if name == FIRST_PERSON else "judge"


def reward_plan(
    role: Role, config: SelectionConfig, environments: Iterable[Environment], models: Mapping[Role, RoleModel]
) -> Plan:
    """Return what the model of ``role`` is asked for the reward."""
    plan = Plan(environments={each.name: each for each in environments})
    if role == "user":
        plan.first_person, plan.user = True, models[role]
        return plan
    plan.judges = [models[role]]
    plan.third_person = role == "preference"
    if role == "judge":
        plan.rubrics = pick_rubrics([config.rubric or ""])
    return plan


def _worth(row: Any, scores: Mapping[int, float], config: SelectionConfig) -> float | None:
    value = row[f"{config.reward}_rating"] if score_name(config) is None else scores.get(row["id"])
    return None if value is None else float(value)


def _scores(run: RunReader, iteration: int | None, split: Split, config: SelectionConfig) -> dict[int, float]:
    """Return the score of each conversation: the mean over its turns, by the wording asked last, then over judges."""
    name = score_name(config)
    if name is None:
        return {}
    values: dict[int, dict[tuple[str, str], float]] = defaultdict(dict)
    for row in run.rows(_SCORES, (iteration, split, name)):
        values[row["episode_id"]][row["judge"], row["method"]] = row["value"]
    return {episode: fmean(found.values()) for episode, found in values.items()}
