"""Environments with other questions for their judges than their own."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Literal

from influence_cli.environments.environment import Environment
from influence_cli.schemas.configs import JudgeQuestion
from influence_cli.schemas.environment import JudgeRole

JudgedRole = Literal["preference", "veto"]


def with_questions(environment: Environment, questions: Mapping[JudgedRole, JudgeQuestion]) -> Environment:
    """Return ``environment`` with ``questions`` in place of its own; itself if there are none.

    Raises InfluenceError where a question uses a variable that the environment lacks.
    """
    if not questions:
        return environment
    roles = environment.spec.roles
    changes: dict[str, JudgeRole] = {}
    for role, asked in questions.items():
        own = getattr(roles, role)
        sees_tools = own.sees_tools if isinstance(own, JudgeRole) else False
        changes[role] = JudgeRole(question=asked.question, choices=asked.choices, sees_tools=sees_tools)
    changed = copy.copy(environment)
    changed.spec = environment.spec.model_copy(update={"roles": roles.model_copy(update=changes)})
    _try(changed, questions)
    return changed


def _try(environment: Environment, questions: Mapping[JudgedRole, JudgeQuestion]) -> None:
    """Render every question once for each scenario; InfluenceError where that fails."""
    mix = environment.mix({})
    population = next(iter(mix), None)
    for reference in {each.scenario: each for each in environment.initial_states()}.values():
        episode = environment.episode(reference, sample=0, population=population, cue=None, seed=0)
        for asked in questions.values():
            episode.rendered(asked.question)
