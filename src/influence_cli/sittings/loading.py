"""Loading models, and telling which they are and how far loading is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from influence_cli import resolution
from influence_cli.resolution import default_model

if TYPE_CHECKING:
    from influence_cli.listening import Listener
    from influence_cli.plugins.registry import PluginRegistry
    from influence_cli.schemas.configs import SimulationConfig
    from influence_cli.schemas.messages import Role
    from influence_cli.simulation.models import RoleModel


def tell_models(config: SimulationConfig, models: Mapping[Role, RoleModel], say: Callable[[str], None]) -> None:
    """Say that all roles have the default model, and which judges have the embedded one without being given it."""
    from influence_cli.simulation.models import EMBEDDED_MINIMUM_MASS, EMBEDDED_NOTE, JUDGES

    default, told = default_model()
    if all(model.name.base == default for model in models.values()):
        say(told)
    named = [role for role, own in config.roles.items() if own.model]
    embedded = [role for role, model in models.items() if model.minimum_mass == EMBEDDED_MINIMUM_MASS]
    judges = [role for role in JUDGES if role in embedded and role not in named]
    if judges:
        say(f"{', '.join(judges)}: {EMBEDDED_NOTE}")


def role_models(
    registry: PluginRegistry, config: SimulationConfig, heard: Listener, **how: Any
) -> dict[Role, RoleModel]:
    """Return what :func:`influence_cli.resolution.role_models` does, showing how far loading is."""
    from influence_cli.backends.reporting import reporting_to

    with heard.progress() as advance, reporting_to(advance):
        return resolution.role_models(registry, config, **how)


def one_model(
    registry: PluginRegistry,
    model: str | None,
    options: Mapping[str, Any],
    heard: Listener,
    base_url: str | None = None,
) -> RoleModel:
    """Return what :func:`influence_cli.resolution.one_model` does, showing how far loading is."""
    from influence_cli.backends.reporting import reporting_to

    with heard.progress() as advance, reporting_to(advance):
        return resolution.one_model(registry, model, options, base_url)
