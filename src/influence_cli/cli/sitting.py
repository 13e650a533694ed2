"""One sitting of a simulation: begun or taken up, talked through, summed up.

Invariant: a run directory is made only after every name, option and model has been resolved, so that a mistake leaves
nothing behind.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from influence_cli.cli import output
from influence_cli.cli.progress import clock, line, show_progress
from influence_cli.cli.provenance import manifest
from influence_cli.cli.resolution import close_models, default_model, find_environments, role_models
from influence_cli.cli.simulate import FLAGS
from influence_cli.environments.environment import Environment
from influence_cli.errors import EXIT_DONE, EXIT_FAILURES, EXIT_STOPPED, EXIT_USER, InfluenceError
from influence_cli.plugins.registry import PluginRegistry
from influence_cli.schemas.configs import SimulationConfig
from influence_cli.schemas.messages import Role
from influence_cli.schemas.records import RunState
from influence_cli.settings import resolve_settings
from influence_cli.simulation.calls import Run
from influence_cli.simulation.estimate import Estimate, estimate
from influence_cli.simulation.models import RoleModel
from influence_cli.simulation.runner import GRACE, Runner, start_tally
from influence_cli.simulation.tally import FATAL_KINDS, Tally
from influence_cli.store.run_directory import RunDirectory, create_run, find_run, open_run
from influence_cli.store.writer import RunWriter

_FREE_TO_CHANGE = ("n", "concurrency", "budget", "prices", "max_failed_share", "stop_after_alike", "cache")
_log = logging.getLogger(__name__)
