"""The public face: the commands as functions, and all that a plugin author may import; versioned with the program.

Names are imported when first used, so that a plugin's module stays cheap to load (``influence --help`` loads every
plugin, and must load no pydantic).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from influence_cli.backends.batches import BatchAnswer, BatchBackend, BatchProgress, BatchState
    from influence_cli.backends.folders import cache_folder, model_folder
    from influence_cli.backends.limits import Clock, Limiter, SystemClock
    from influence_cli.backends.logprobs import ChoiceReading, Position, count_answers
    from influence_cli.backends.prompts import Prompts
    from influence_cli.backends.protocol import Backend, ModelCatalog
    from influence_cli.backends.reporting import report_progress, reporting_to
    from influence_cli.backends.retries import Retrier, RetryBudget, RetryPolicy
    from influence_cli.environments.environment import Environment, Episode
    from influence_cli.environments.loading import environment_parts, load_environment
    from influence_cli.errors import CallFailedError, FailureKind, InfluenceError, UnknownNameError
    from influence_cli.journey import Finished, compare, read_run, report, resume, score, simulate, train
    from influence_cli.launching.local import tethered
    from influence_cli.launching.protocol import Job, JobStatus, Launcher, Resources, Task
    from influence_cli.plugins.component import Component
    from influence_cli.plugins.hookspecs import hookimpl
    from influence_cli.schemas.frozen import Frozen
    from influence_cli.schemas.messages import ChatMessage, Message, Role, ToolCall
    from influence_cli.schemas.requests import (
        Capabilities,
        ChoiceRequest,
        Distribution,
        GenerateRequest,
        Generation,
        ModelInfo,
        Sampling,
        ToolSchema,
        Usage,
    )
    from influence_cli.schemas.training import RowsWanted, TrainingJob, TrainingOutcome, TrainingPair, TrainingRow
    from influence_cli.scoring.scorers import Measured, Scorer, agent_replies
    from influence_cli.seeding import derive_seed, unit_draw
    from influence_cli.store.exporters import Exporter
    from influence_cli.store.reader import RunReader
    from influence_cli.training.adapters import adapter_digest
    from influence_cli.training.protocol import Algorithm, Example, Told, TrackedRun, Tracker

_HOME = {
    "influence_cli.backends.batches": ("BatchAnswer", "BatchBackend", "BatchProgress", "BatchState"),
    "influence_cli.backends.folders": ("cache_folder", "model_folder"),
    "influence_cli.backends.limits": ("Clock", "Limiter", "SystemClock"),
    "influence_cli.backends.logprobs": ("ChoiceReading", "Position", "count_answers"),
    "influence_cli.backends.reporting": ("report_progress", "reporting_to"),
    "influence_cli.backends.prompts": ("Prompts",),
    "influence_cli.backends.protocol": ("Backend", "ModelCatalog"),
    "influence_cli.backends.retries": ("Retrier", "RetryBudget", "RetryPolicy"),
    "influence_cli.environments.environment": ("Environment", "Episode"),
    "influence_cli.environments.loading": ("environment_parts", "load_environment"),
    "influence_cli.errors": ("CallFailedError", "FailureKind", "InfluenceError", "UnknownNameError"),
    "influence_cli.journey": (
        "Finished",
        "compare",
        "read_run",
        "report",
        "resume",
        "score",
        "simulate",
        "train",
    ),
    "influence_cli.launching.local": ("tethered",),
    "influence_cli.launching.protocol": ("Job", "JobStatus", "Launcher", "Resources", "Task"),
    "influence_cli.plugins.component": ("Component",),
    "influence_cli.plugins.hookspecs": ("hookimpl",),
    "influence_cli.schemas.frozen": ("Frozen",),
    "influence_cli.schemas.messages": ("ChatMessage", "Message", "Role", "ToolCall"),
    "influence_cli.schemas.requests": (
        "Capabilities",
        "ChoiceRequest",
        "Distribution",
        "GenerateRequest",
        "Generation",
        "ModelInfo",
        "Sampling",
        "ToolSchema",
        "Usage",
    ),
    "influence_cli.scoring.scorers": ("Measured", "Scorer", "agent_replies"),
    "influence_cli.schemas.training": ("RowsWanted", "TrainingJob", "TrainingOutcome", "TrainingPair", "TrainingRow"),
    "influence_cli.seeding": ("derive_seed", "unit_draw"),
    "influence_cli.store.exporters": ("Exporter",),
    "influence_cli.store.reader": ("RunReader",),
    "influence_cli.training.adapters": ("adapter_digest",),
    "influence_cli.training.protocol": ("Algorithm", "Example", "Told", "TrackedRun", "Tracker"),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "Algorithm",
    "Backend",
    "BatchAnswer",
    "BatchBackend",
    "BatchProgress",
    "BatchState",
    "CallFailedError",
    "Capabilities",
    "ChatMessage",
    "ChoiceReading",
    "ChoiceRequest",
    "Clock",
    "Component",
    "Distribution",
    "Environment",
    "Episode",
    "Example",
    "Exporter",
    "FailureKind",
    "Finished",
    "Frozen",
    "GenerateRequest",
    "Generation",
    "InfluenceError",
    "Job",
    "JobStatus",
    "Launcher",
    "Limiter",
    "Measured",
    "Message",
    "ModelCatalog",
    "ModelInfo",
    "Position",
    "Prompts",
    "Resources",
    "Retrier",
    "RetryBudget",
    "RetryPolicy",
    "Role",
    "RowsWanted",
    "RunReader",
    "Sampling",
    "Scorer",
    "SystemClock",
    "Task",
    "Told",
    "ToolCall",
    "ToolSchema",
    "TrackedRun",
    "Tracker",
    "TrainingJob",
    "TrainingOutcome",
    "TrainingPair",
    "TrainingRow",
    "UnknownNameError",
    "Usage",
    "adapter_digest",
    "agent_replies",
    "cache_folder",
    "compare",
    "count_answers",
    "derive_seed",
    "environment_parts",
    "hookimpl",
    "load_environment",
    "model_folder",
    "read_run",
    "report",
    "report_progress",
    "reporting_to",
    "resume",
    "score",
    "simulate",
    "tethered",
    "train",
    "unit_draw",
]


def __getattr__(name: str) -> Any:
    """Import a public name from its home; AttributeError for any other."""
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(module), name)
    globals()[name] = value
    return value
