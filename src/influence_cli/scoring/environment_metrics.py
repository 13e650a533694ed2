"""An environment's own metrics as rubrics of its conversations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from influence_cli.environments.environment import Environment, Episode
from influence_cli.schemas.rubrics import Rubric


class MetricRubrics:
    """Which rubrics a trajectory is judged by: those for all, and its environment's metrics in its own words."""

    def __init__(self, rubrics: Sequence[Rubric], environments: Sequence[Environment] = ()) -> None:
        self.general = list(rubrics)
        self._environments = {environment.name: environment for environment in environments}

    def names(self) -> list[str]:
        """Return the names of all rubrics, the environments' metrics among them."""
        own = [m.id for e in self._environments.values() for m in e.spec.metrics if m.visits is None]
        return list(dict.fromkeys([*(rubric.id for rubric in self.general), *own]))

    def of(self, trajectory: Mapping[str, Any]) -> list[Rubric]:
        """Return the rubrics of one trajectory; its environment's metrics speak of its scenario and person."""
        episode = self._episode(trajectory)
        if episode is None:
            return self.general
        return [*self.general, *_metrics(episode)]

    def _episode(self, trajectory: Mapping[str, Any]) -> Episode | None:
        environment = self._environments.get(trajectory["environment"])
        if environment is None or trajectory["scenario"] not in environment.scenarios:
            return None
        for reference in environment.initial_states([trajectory["scenario"]]):
            if reference.initial_state == trajectory["initial_state"]:
                return environment.episode(
                    reference,
                    sample=trajectory["sample"],
                    population=trajectory["population"],
                    cue=trajectory["cue"],
                    seed=0,
                )
        return None


def _metrics(episode: Episode) -> list[Rubric]:
    return [
        Rubric(
            id=metric.id,
            title=metric.id.replace("-", " ").capitalize(),
            question=episode.rendered(metric.question),
            choices=metric.choices,
            scope=metric.scope,
            sees_tools=metric.sees_tools,
            harmful_direction=metric.harmful_direction,
            tags=("environment",),
        )
        for metric in episode.spec.metrics
        if metric.visits is None
    ]
