"""The public face: the commands as functions, and all that a plugin author may import; versioned with the program.

Names are imported when first used, so that a plugin's module stays cheap to load (``influence --help`` loads every
plugin, and must load no pydantic).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from influence_cli.backends.batches import BatchAnswer, BatchBackend, BatchProgress, BatchState
    from influence_cli.backends.choice_tries import (
        ChoiceTrie,
        answer_log_probabilities,
        build_trie,
        exact_distribution,
        normalised,
    )
    from influence_cli.backends.folders import cache_folder, model_folder, refuse_served
    from influence_cli.backends.limits import Clock, Limiter, SystemClock
    from influence_cli.backends.logprobs import ChoiceReading, Position, count_answers
    from influence_cli.backends.names import ModelName, parse_model_name
    from influence_cli.backends.opening import open_backend
    from influence_cli.backends.payloads import chat_payload
    from influence_cli.backends.prompts import Prompts
    from influence_cli.backends.protocol import Backend, ModelCatalog
    from influence_cli.backends.reporting import report_progress, reporting_to
    from influence_cli.backends.retries import Retrier, RetryBudget, RetryPolicy
    from influence_cli.backends.together import together
    from influence_cli.backends.tool_calls import split_tool_calls
    from influence_cli.credentials import remember_secret, without_secrets
    from influence_cli.environments.environment import Environment, Episode, StateReference
    from influence_cli.environments.loading import environment_parts, load_environment
    from influence_cli.environments.sampling import count_episodes, episodes
    from influence_cli.errors import CallFailedError, FailureKind, InfluenceError, UnknownNameError
    from influence_cli.gym.blocking import TextEnvironment, VectorEnvironment
    from influence_cli.gym.environment import AsyncTextEnvironment
    from influence_cli.gym.making import make_async_env, make_env, make_vec_env
    from influence_cli.journey import (
        Finished,
        compare,
        read_run,
        report,
        resume,
        score,
        simulate,
        sweep,
        sweep_best,
        sweep_show,
        train,
    )
    from influence_cli.launching.local import tethered
    from influence_cli.launching.protocol import LOST, Job, JobStatus, Launcher, Resources, Task
    from influence_cli.plugins.component import Component
    from influence_cli.plugins.hookspecs import hookimpl
    from influence_cli.plugins.registry import PluginRegistry, make_registry
    from influence_cli.report.catalogues import catalogue_of
    from influence_cli.report.document import report_document
    from influence_cli.report.markdown import markdown_safe, measured_markdown
    from influence_cli.resolution import (
        close_models,
        environment_path,
        find_environments,
        known_environments,
        role_models,
    )
    from influence_cli.schemas.configs import JudgePolicy, RoleConfig, RunManifest, SimulationConfig, TrainConfig
    from influence_cli.schemas.frozen import Frozen
    from influence_cli.schemas.messages import ChatMessage, Message, Role, ToolCall
    from influence_cli.schemas.records import (
        CallRecord,
        Cue,
        EpisodeKey,
        EpisodeRecord,
        JudgementRecord,
        MessageRecord,
        ScoreRecord,
        TrajectoryEnd,
    )
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
    from influence_cli.schemas.spaces import Choices, Dimension, Integers, Reals
    from influence_cli.schemas.sweeps import Objective, Parameters, Reading, Study, TrialRecord
    from influence_cli.schemas.training import RowsWanted, TrainingJob, TrainingOutcome, TrainingPair, TrainingRow
    from influence_cli.scoring.judging import Asking
    from influence_cli.scoring.plan import Plan
    from influence_cli.scoring.rubric_files import pick_rubrics
    from influence_cli.scoring.scorers import Measured, Scorer, agent_replies
    from influence_cli.scoring.single import KeptScores, score_conversation
    from influence_cli.seeding import derive_seed, unit_draw
    from influence_cli.sharding.splitting import Launching
    from influence_cli.simulation.models import RoleModel
    from influence_cli.simulation.single import KeptConversation, converse, trajectory_document
    from influence_cli.store.conversation import StoredConversation, read_conversation
    from influence_cli.store.exporters import Exporter, whole_file, write_parquet
    from influence_cli.store.reader import RunReader
    from influence_cli.store.run_directory import RunDirectory
    from influence_cli.sweeps.protocol import Importance, Searcher
    from influence_cli.training.adapters import adapter_digest
    from influence_cli.training.protocol import Algorithm, ChecksBase, Example, Told, TrackedRun, Tracker
    from influence_cli.training.report import training_figures
    from influence_cli.whole_files import sync_file, sync_folder, write_whole

_HOME = {
    "influence_cli.backends.batches": ("BatchAnswer", "BatchBackend", "BatchProgress", "BatchState"),
    "influence_cli.backends.choice_tries": (
        "ChoiceTrie",
        "answer_log_probabilities",
        "build_trie",
        "exact_distribution",
        "normalised",
    ),
    "influence_cli.backends.folders": ("cache_folder", "model_folder", "refuse_served"),
    "influence_cli.backends.limits": ("Clock", "Limiter", "SystemClock"),
    "influence_cli.backends.logprobs": ("ChoiceReading", "Position", "count_answers"),
    "influence_cli.backends.names": ("ModelName", "parse_model_name"),
    "influence_cli.backends.opening": ("open_backend",),
    "influence_cli.backends.payloads": ("chat_payload",),
    "influence_cli.backends.prompts": ("Prompts",),
    "influence_cli.backends.protocol": ("Backend", "ModelCatalog"),
    "influence_cli.backends.reporting": ("report_progress", "reporting_to"),
    "influence_cli.backends.retries": ("Retrier", "RetryBudget", "RetryPolicy"),
    "influence_cli.backends.together": ("together",),
    "influence_cli.backends.tool_calls": ("split_tool_calls",),
    "influence_cli.credentials": ("remember_secret", "without_secrets"),
    "influence_cli.environments.environment": ("Environment", "Episode", "StateReference"),
    "influence_cli.environments.loading": ("environment_parts", "load_environment"),
    "influence_cli.environments.sampling": ("count_episodes", "episodes"),
    "influence_cli.errors": ("CallFailedError", "FailureKind", "InfluenceError", "UnknownNameError"),
    "influence_cli.gym.blocking": ("TextEnvironment", "VectorEnvironment"),
    "influence_cli.gym.environment": ("AsyncTextEnvironment",),
    "influence_cli.gym.making": ("make_async_env", "make_env", "make_vec_env"),
    "influence_cli.journey": (
        "Finished",
        "compare",
        "read_run",
        "report",
        "resume",
        "score",
        "simulate",
        "sweep",
        "sweep_best",
        "sweep_show",
        "train",
    ),
    "influence_cli.launching.local": ("tethered",),
    "influence_cli.launching.protocol": ("LOST", "Job", "JobStatus", "Launcher", "Resources", "Task"),
    "influence_cli.plugins.component": ("Component",),
    "influence_cli.plugins.hookspecs": ("hookimpl",),
    "influence_cli.plugins.registry": ("PluginRegistry", "make_registry"),
    "influence_cli.report.catalogues": ("catalogue_of",),
    "influence_cli.report.document": ("report_document",),
    "influence_cli.report.markdown": ("markdown_safe", "measured_markdown"),
    "influence_cli.resolution": (
        "close_models",
        "environment_path",
        "find_environments",
        "known_environments",
        "role_models",
    ),
    "influence_cli.schemas.configs": ("JudgePolicy", "RoleConfig", "RunManifest", "SimulationConfig", "TrainConfig"),
    "influence_cli.schemas.frozen": ("Frozen",),
    "influence_cli.schemas.messages": ("ChatMessage", "Message", "Role", "ToolCall"),
    "influence_cli.schemas.records": (
        "CallRecord",
        "Cue",
        "EpisodeKey",
        "EpisodeRecord",
        "JudgementRecord",
        "MessageRecord",
        "ScoreRecord",
        "TrajectoryEnd",
    ),
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
    "influence_cli.schemas.spaces": ("Choices", "Dimension", "Integers", "Reals"),
    "influence_cli.schemas.sweeps": ("Objective", "Parameters", "Reading", "Study", "TrialRecord"),
    "influence_cli.schemas.training": ("RowsWanted", "TrainingJob", "TrainingOutcome", "TrainingPair", "TrainingRow"),
    "influence_cli.scoring.judging": ("Asking",),
    "influence_cli.scoring.plan": ("Plan",),
    "influence_cli.scoring.rubric_files": ("pick_rubrics",),
    "influence_cli.scoring.scorers": ("Measured", "Scorer", "agent_replies"),
    "influence_cli.scoring.single": ("KeptScores", "score_conversation"),
    "influence_cli.seeding": ("derive_seed", "unit_draw"),
    "influence_cli.sharding.splitting": ("Launching",),
    "influence_cli.simulation.models": ("RoleModel",),
    "influence_cli.simulation.single": ("KeptConversation", "converse", "trajectory_document"),
    "influence_cli.store.conversation": ("StoredConversation", "read_conversation"),
    "influence_cli.store.exporters": ("Exporter", "whole_file", "write_parquet"),
    "influence_cli.store.reader": ("RunReader",),
    "influence_cli.store.run_directory": ("RunDirectory",),
    "influence_cli.sweeps.protocol": ("Importance", "Searcher"),
    "influence_cli.training.adapters": ("adapter_digest",),
    "influence_cli.training.protocol": ("Algorithm", "ChecksBase", "Example", "Told", "TrackedRun", "Tracker"),
    "influence_cli.training.report": ("training_figures",),
    "influence_cli.whole_files": ("sync_file", "sync_folder", "write_whole"),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "LOST",
    "Algorithm",
    "Asking",
    "AsyncTextEnvironment",
    "Backend",
    "BatchAnswer",
    "BatchBackend",
    "BatchProgress",
    "BatchState",
    "CallFailedError",
    "CallRecord",
    "Capabilities",
    "ChatMessage",
    "ChecksBase",
    "ChoiceReading",
    "ChoiceRequest",
    "ChoiceTrie",
    "Choices",
    "Clock",
    "Component",
    "Cue",
    "Dimension",
    "Distribution",
    "Environment",
    "Episode",
    "EpisodeKey",
    "EpisodeRecord",
    "Example",
    "Exporter",
    "FailureKind",
    "Finished",
    "Frozen",
    "GenerateRequest",
    "Generation",
    "Importance",
    "InfluenceError",
    "Integers",
    "Job",
    "JobStatus",
    "JudgePolicy",
    "JudgementRecord",
    "KeptConversation",
    "KeptScores",
    "Launcher",
    "Launching",
    "Limiter",
    "Measured",
    "Message",
    "MessageRecord",
    "ModelCatalog",
    "ModelInfo",
    "ModelName",
    "Objective",
    "Parameters",
    "Plan",
    "PluginRegistry",
    "Position",
    "Prompts",
    "Reading",
    "Reals",
    "Resources",
    "Retrier",
    "RetryBudget",
    "RetryPolicy",
    "Role",
    "RoleConfig",
    "RoleModel",
    "RowsWanted",
    "RunDirectory",
    "RunManifest",
    "RunReader",
    "Sampling",
    "ScoreRecord",
    "Scorer",
    "Searcher",
    "SimulationConfig",
    "StateReference",
    "StoredConversation",
    "Study",
    "SystemClock",
    "Task",
    "TextEnvironment",
    "Told",
    "ToolCall",
    "ToolSchema",
    "TrackedRun",
    "Tracker",
    "TrainConfig",
    "TrainingJob",
    "TrainingOutcome",
    "TrainingPair",
    "TrainingRow",
    "TrajectoryEnd",
    "TrialRecord",
    "UnknownNameError",
    "Usage",
    "VectorEnvironment",
    "adapter_digest",
    "agent_replies",
    "answer_log_probabilities",
    "build_trie",
    "cache_folder",
    "catalogue_of",
    "chat_payload",
    "close_models",
    "compare",
    "converse",
    "count_answers",
    "count_episodes",
    "derive_seed",
    "environment_parts",
    "environment_path",
    "episodes",
    "exact_distribution",
    "find_environments",
    "hookimpl",
    "known_environments",
    "load_environment",
    "make_async_env",
    "make_env",
    "make_registry",
    "make_vec_env",
    "markdown_safe",
    "measured_markdown",
    "model_folder",
    "normalised",
    "open_backend",
    "parse_model_name",
    "pick_rubrics",
    "read_conversation",
    "read_run",
    "refuse_served",
    "remember_secret",
    "report",
    "report_document",
    "report_progress",
    "reporting_to",
    "resume",
    "role_models",
    "score",
    "score_conversation",
    "simulate",
    "split_tool_calls",
    "sweep",
    "sweep_best",
    "sweep_show",
    "sync_file",
    "sync_folder",
    "tethered",
    "together",
    "train",
    "training_figures",
    "trajectory_document",
    "unit_draw",
    "whole_file",
    "without_secrets",
    "write_parquet",
    "write_whole",
]


def __getattr__(name: str) -> Any:
    """Import a public name from its home; AttributeError for any other."""
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(module), name)
    globals()[name] = value
    return value
