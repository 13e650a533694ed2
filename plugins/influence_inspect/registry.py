"""What Inspect finds by its own entry point: tasks, solver, scorers, and our backends as a model provider."""

from __future__ import annotations

from influence_inspect.cast import ReleaseModels
from influence_inspect.provider import influence
from influence_inspect.scorers import preference, rubrics, veto
from influence_inspect.solver import simulated_user
from influence_inspect.tasks import register_tasks

register_tasks()

__all__ = ["ReleaseModels", "influence", "preference", "rubrics", "simulated_user", "veto"]
