"""From names to environments: ``make_env("therapy", model="openai:gpt-4o-mini")``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any

from influence_cli.backends.names import parse_model_name
from influence_cli.environments.questions import with_questions
from influence_cli.gym.blocking import TextEnvironment, VectorEnvironment, refuse_running_loop
from influence_cli.gym.environment import AsyncTextEnvironment, Reward, rating
from influence_cli.gym.episodes import EpisodeStream
from influence_cli.gym.outside import OutsideAgent
from influence_cli.gym.vector import AsyncVectorEnvironment
from influence_cli.plugins.registry import make_registry
from influence_cli.resolution import close_models, find_environments, role_models, roles_of
from influence_cli.schemas.configs import SimulationConfig
from influence_cli.schemas.messages import Role
from influence_cli.settings import resolve_settings
from influence_cli.simulation.models import RoleModel
from influence_cli.simulation.runner import start_tally

_OUTSIDE = "outside:learner"

Release = Callable[[], Awaitable[None]]


def make_env(
    environment: str | Sequence[str],
    *,
    model: str | None = None,
    models: Mapping[Role, str] | None = None,
    options: Mapping[str, Any] | None = None,
    reward: Reward = rating,
    **settings: Any,
) -> TextEnvironment:
    """Return an environment whose agent is the caller; use it as a context manager, or close it.

    ``environment``: names or folders, as for ``influence simulate --env``. ``model`` speaks for every role but the agent's,
    ``models`` for single ones, ``options`` are the backends'. ``reward`` is what a step is worth, by its ``info``; the
    rating unless another is given. ``settings`` are those of a simulation (``seed``, ``turns``, ``split``, ``populations``,
    ``cue``, ``scenarios``, ``veto`` ...). Raises InfluenceError for what the caller can mend.
    """
    refuse_running_loop()
    (core,), release = _made(environment, 1, model, models, options, reward, settings)
    return TextEnvironment(core, release)


def make_vec_env(
    environment: str | Sequence[str],
    num_envs: int,
    *,
    model: str | None = None,
    models: Mapping[Role, str] | None = None,
    options: Mapping[str, Any] | None = None,
    reward: Reward = rating,
    **settings: Any,
) -> VectorEnvironment:
    """Return ``num_envs`` conversations side by side, which share their models; else as :func:`make_env`."""
    refuse_running_loop()
    cores, release = _made(environment, num_envs, model, models, options, reward, settings)
    return VectorEnvironment(AsyncVectorEnvironment(cores), release)


def make_async_env(
    environment: str | Sequence[str],
    *,
    model: str | None = None,
    models: Mapping[Role, str] | None = None,
    options: Mapping[str, Any] | None = None,
    reward: Reward = rating,
    **settings: Any,
) -> tuple[AsyncTextEnvironment, Release]:
    """Return the core for callers with an event loop, and what releases its models; else as :func:`make_env`."""
    (core,), release = _made(environment, 1, model, models, options, reward, settings)
    return core, release


def _made(
    environment: str | Sequence[str],
    count: int,
    model: str | None,
    models: Mapping[Role, str] | None,
    options: Mapping[str, Any] | None,
    reward: Reward,
    settings: Mapping[str, Any],
) -> tuple[list[AsyncTextEnvironment], Release]:
    """Return ``count`` cores that share models and conversations, and what releases the models."""
    config = _config(environment, model, models, options, settings)
    registry = make_registry()
    found = find_environments(registry, config.environments)
    environments = [with_questions(each, config.questions) for each in found]
    for each in environments:
        each.mix(config.populations)
        each.refuse_silent(config.cue)
    start_tally(environments, config)
    roles = [role for role in roles_of(config) if role != "agent"]
    speaking = role_models(registry, config, roles=roles)
    agent = RoleModel(parse_model_name(_OUTSIDE), OutsideAgent(), free=True)
    stream = EpisodeStream(environments, config)
    cores = [AsyncTextEnvironment(stream, speaking, config, agent=agent, reward=reward) for _ in range(max(1, count))]
    return cores, partial(close_models, speaking)


def _config(
    environment: str | Sequence[str],
    model: str | None,
    models: Mapping[Role, str] | None,
    options: Mapping[str, Any] | None,
    settings: Mapping[str, Any],
) -> SimulationConfig:
    names = (environment,) if isinstance(environment, str) else tuple(environment)
    given: dict[str, Any] = {"environments": names, **settings}
    if model is not None:
        given["default.model"] = model
    if options:
        given["default.options"] = dict(options)
    given |= {f"roles.{role}.model": name for role, name in (models or {}).items()}
    return resolve_settings(SimulationConfig, flags=given, flag_names={name: name for name in given})
