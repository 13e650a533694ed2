"""From names to objects: environments by name or folder, a backend and its model for every role, launchers.

Invariant: roles that name the same base model with the same options share one backend; the adapter goes with each
request. Loading tells how far it is to whoever listens (``reporting_to``).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from influence_cli.credentials import holds_secret
from influence_cli.errors import InfluenceError

if TYPE_CHECKING:
    from pydantic import BaseModel

    from influence_cli.backends.names import ModelName
    from influence_cli.backends.protocol import Backend
    from influence_cli.environments.environment import Environment
    from influence_cli.launching.protocol import Launcher
    from influence_cli.plugins.component import AnyComponent
    from influence_cli.plugins.registry import PluginRegistry
    from influence_cli.schemas.configs import RoleConfig, SimulationConfig
    from influence_cli.schemas.messages import Role
    from influence_cli.schemas.requests import Capabilities, ChoiceRequest, Distribution, GenerateRequest, Generation
    from influence_cli.simulation.models import RoleModel

C = TypeVar("C", bound="SimulationConfig")
EMBEDDED_MODEL = "transformers:smollm2"
MODEL_VARIABLE = "INFLUENCE_MODEL"
_KEY_VARIABLE = "OPENAI_API_KEY"
LOCAL = "local"
"""The launcher of this machine, which starts what no other is named for."""


def default_model() -> tuple[str, str]:
    """Return the model of roles that name none, and a line that says why it is this one."""
    named = os.environ.get(MODEL_VARIABLE)
    if named:
        return named, f"Model: {named}, from {MODEL_VARIABLE}."
    if os.environ.get(_KEY_VARIABLE):
        return EMBEDDED_MODEL, (
            f"Model: {EMBEDDED_MODEL}, on this machine. {_KEY_VARIABLE} is set but costs money, so it is used only "
            "when asked for: --model openai:NAME."
        )
    return EMBEDDED_MODEL, f"Model: {EMBEDDED_MODEL}, the small embedded default; --model names another."


def with_default_model(config: C) -> C:
    """Return ``config`` with the default model named, if a role needs it: a run taken up later keeps its model."""
    named = [config.roles[role].model if role in config.roles else None for role in roles_of(config)]
    if config.default.model is not None or all(named):
        return config
    return config.model_copy(update={"default": config.default.model_copy(update={"model": default_model()[0]})})


def roles_of(config: SimulationConfig) -> tuple[Role, ...]:
    """Return the roles that a simulation asks."""
    roles: tuple[Role, ...] = ("agent", "user", "preference", "transition")
    return (*roles, "veto") if config.veto else roles


def find_environments(
    registry: PluginRegistry, names: Sequence[str], folders: Iterable[Path] = ()
) -> list[Environment]:
    """Return the environments called ``names``, each once; UnknownNameError or DocumentError otherwise."""
    from influence_cli.environments.catalog import find_environment

    folders = list(folders)
    known = known_environments(registry, folders)
    path = environment_path(registry, folders)
    return [known[name]() if name in known else find_environment(name, path) for name in dict.fromkeys(names)]


def lasting_names(
    names: Sequence[str], environments: Sequence[Environment], folders: Sequence[Path] = ()
) -> tuple[str, ...]:
    """Return names of ``environments``, found as ``names``, that hold anywhere: a folder's is its absolute path."""
    return tuple(
        str(environment.folder) if environment.folder and (folders or Path(name).name != name) else name
        for name, environment in zip(names, environments, strict=True)
    )


def known_environments(registry: PluginRegistry, folders: Iterable[Path] = ()) -> dict[str, Callable[[], Environment]]:
    """Return by name what loads each environment: plugins' own, and over them those in folders."""
    from influence_cli.environments.loading import load_environment
    from influence_cli.environments.places import found_environments

    made = {
        offer.component.name: partial(_made, registry, offer.component.name) for offer in registry.offers("environment")
    }
    found = found_environments(environment_path(registry, folders))
    known = {**made, **{each.name: partial(load_environment, each.folder) for each in found}}
    return dict(sorted(known.items()))


def _made(registry: PluginRegistry, name: str) -> Environment:
    from influence_cli.plugins.options import validate_options

    component = registry.component("environment", name)
    environment: Environment = component.load()(validate_options(component, {}))
    return environment


def environment_path(registry: PluginRegistry, folders: Iterable[Path] = ()) -> list[Path]:
    """Return the folders that environments are looked for in; InfluenceError if one asked for is none."""
    from influence_cli.environments.places import search_path

    asked = list(folders)
    for folder in asked:
        if not folder.is_dir():
            raise InfluenceError(f"--environments-dir {folder} is no folder.")
    return search_path(asked, registry.environment_paths())


def check_launcher(registry: PluginRegistry, name: str, options: Mapping[str, Any]) -> None:
    """Raise InfluenceError for what is wrong with the launcher ``name`` or with ``options``, without making it.

    They are kept with its jobs, and may go into scripts, so that no key may stand in them.
    """
    from influence_cli.plugins.options import validate_options

    if holds_secret(options):
        raise InfluenceError(
            "An option of the launcher seems to hold a key or a password, and it is kept with the job.",
            hint="Put it in an environment variable.",
        )
    validate_options(registry.component("launcher", name), options, flag="--launcher-option ")


def launcher_with(registry: PluginRegistry, name: str, options: Mapping[str, Any]) -> Launcher:
    """Return the launcher called ``name`` with ``options``; InfluenceError for what is wrong."""
    from influence_cli.plugins.options import validate_options

    component = registry.component("launcher", name)
    made: Launcher = component.load()(validate_options(component, options, flag="--launcher-option "))
    return made


def one_model(
    registry: PluginRegistry, model: str | None, options: Mapping[str, Any], base_url: str | None = None
) -> RoleModel:
    """Return the model that a command with a single role asks; None names the default. Raises as :func:`role_models`."""
    from influence_cli.schemas.configs import RoleConfig, SimulationConfig

    given = {**options, **({"base_url": base_url} if base_url else {})}
    config = SimulationConfig(default=RoleConfig(model=model, options=given))
    return role_models(registry, config, roles=("judge",))["judge"]


def agent_name(config: SimulationConfig) -> ModelName:
    """Return the agent's model, with its adapter if it has one."""
    from influence_cli.backends.names import parse_model_name

    own = config.roles.get("agent")
    return parse_model_name((own and own.model) or config.default.model or default_model()[0])


def role_models(
    registry: PluginRegistry,
    config: SimulationConfig,
    *,
    roles: Sequence[Role] | None = None,
    agent: ModelName | None = None,
    load: bool = True,
) -> dict[Role, RoleModel]:
    """Return the model of every role that a simulation asks (or of ``roles``), loading each backend once.

    ``agent`` speaks in place of the agent's model; without ``load`` the models have names and settings, and no backend
    that answers. Raises UnknownNameError for an unknown backend, InfluenceError for options, keys or models that do not fit.
    """
    from influence_cli.backends.names import parse_model_name
    from influence_cli.plugins.options import validate_options
    from influence_cli.simulation.models import RoleModel

    fallback, _ = default_model()
    backends: dict[tuple[str, str], Backend] = {}
    models: dict[Role, RoleModel] = {}
    used: set[str] = set()
    known: set[str] = set()
    for role in roles or roles_of(config):
        own = config.roles.get(role)
        name = parse_model_name((own and own.model) or config.default.model or fallback)
        name = agent if agent is not None and role == "agent" else name
        component = registry.component("backend", name.backend)
        known.update(component.options.model_fields)
        options = validate_options(component, _options(component, config.default, own, used))
        key = (name.base, options.model_dump_json())
        if key not in backends and not load:
            backends[key] = _Unloaded()
        elif key not in backends:
            made: Backend = component.load()(name.model, options)
            backends[key] = made if config.cache is None else _cached(made, config.cache, name, options)
        overrides = config.default.sampling.model_copy(update=own.sampling.model_dump(exclude_none=True) if own else {})
        mass = _minimum_mass(config, name.base)
        price = config.prices.get(name.base)
        models[role] = RoleModel(name, backends[key], overrides, price, mass, component.free)
    _check_used(config.default.options, used, known, models)
    _check_prices(config, models)
    return models


class _Unloaded:
    """Stands for a backend where nothing is asked: in estimates."""

    @property
    def capabilities(self) -> Capabilities:
        """Nothing is known of what it can do."""
        from influence_cli.schemas.requests import Capabilities

        return Capabilities(logprobs=False, seeds=False)

    async def generate(self, request: GenerateRequest) -> Generation:
        """Refuse."""
        raise NotImplementedError

    async def choose(self, request: ChoiceRequest) -> Distribution:
        """Refuse."""
        raise NotImplementedError

    async def aclose(self) -> None:
        """Release nothing."""


def _minimum_mass(config: SimulationConfig, base: str) -> float:
    from influence_cli.simulation.models import DEFAULT_MINIMUM_MASS, EMBEDDED_MINIMUM_MASS

    if config.judges.minimum_mass is not None:
        return config.judges.minimum_mass
    embedded = base.partition(":")[2] == EMBEDDED_MODEL.partition(":")[2]  # whoever computes it
    return EMBEDDED_MINIMUM_MASS if embedded else DEFAULT_MINIMUM_MASS


def _options(component: AnyComponent, default: RoleConfig, own: RoleConfig | None, used: set[str]) -> dict[str, Any]:
    """Return the run's options that this backend has, and the role's own over them."""
    shared = {name: value for name, value in default.options.items() if name in component.options.model_fields}
    used.update(shared)
    return {**shared, **(own.options if own else {})}


def _check_used(options: Mapping[str, Any], used: set[str], known: set[str], models: Mapping[Role, RoleModel]) -> None:
    unused = [name for name in options if name not in used]
    if unused:
        names = ", ".join(sorted({model.name.backend for model in models.values()}))
        near = get_close_matches(unused[0], known, n=1, cutoff=0.5)
        raise InfluenceError(
            f"-o {unused[0]}: none of the backends in use ({names}) has such an option.",
            hint=f"Did you mean {near[0]!r}?" if near else f"See `influence plugins show {names.split(', ')[0]}`.",
        )


def _check_prices(config: SimulationConfig, models: Mapping[Role, RoleModel]) -> None:
    if config.budget.cost is None:
        return
    for model in models.values():
        if model.unpriced:
            raise InfluenceError(
                f"--max-cost needs the price of {model.name.base}, in US dollars for a million tokens.",
                hint=f"For instance {price_example(model.name.base)}.",
            )


def price_example(name: str) -> str:
    """Return what gives the model ``name`` a price on the command line."""
    return f"--set 'prices={{\"{name}\": {{prompt: 0.15, completion: 0.60}}}}'"


def _cached(backend: Backend, folder: str, name: ModelName, options: BaseModel) -> Backend:
    from influence_cli.backends.cache import AnswerCache, CachedBackend, answer_options

    identity: dict[str, Any] = {"backend": name.backend, "model": name.model, "options": answer_options(options)}
    return CachedBackend(backend, AnswerCache(Path(folder)), identity)


async def close_models(models: Mapping[Role, RoleModel]) -> None:
    """Release every backend once."""
    from influence_cli.simulation.models import backends_of

    for backend in backends_of(models.values()):
        await backend.aclose()
