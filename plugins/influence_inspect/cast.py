"""Who speaks for which role in a task.

The evaluated model is the agent. Each other role is spoken for by the first of: a model of ours by name
(``-T user_model=openai:...``), a model role of Inspect's (``--model-role user=...``), the evaluated model.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from inspect_ai.hooks import Hooks, RunEnd, hooks
from inspect_ai.model import get_model

from influence_cli.api import (
    Environment,
    ModelName,
    PluginRegistry,
    Role,
    RoleConfig,
    RoleModel,
    SimulationConfig,
    close_models,
    find_environments,
    make_registry,
    parse_model_name,
    role_models,
)
from influence_inspect.backend import InspectBackend
from influence_inspect.options import InspectOptions

_SIMULATED: tuple[Role, ...] = ("user", "preference", "transition", "veto")
_MINIMUM_MASS = 0.5


@cache
def registry() -> PluginRegistry:
    """Return the plugins of this process."""
    return make_registry()


@cache
def environment_named(name: str) -> Environment:
    """Return an environment by name or folder; UnknownNameError or DocumentError otherwise."""
    return find_environments(registry(), [name])[0]


class Cast:
    """The models of a task. Names are checked when it is made; models are loaded when first asked for, and kept."""

    def __init__(
        self, config: SimulationConfig, named: Mapping[Role, str | None], options: Mapping[str, Any] | None = None
    ) -> None:
        self._named = {role: name for role, name in named.items() if name}
        for name in self._named.values():
            parse_model_name(name)
        roles = {role: RoleConfig(model=name) for role, name in self._named.items()}
        default = config.default.model_copy(update={"options": dict(options or {})})
        self.config = config.model_copy(update={"roles": roles, "default": default})
        self._loaded: dict[Role, RoleModel] | None = None

    def models(self) -> dict[Role, RoleModel]:
        """Return the models of one conversation; its agent is its own, and knows its own limits."""
        roles = _SIMULATED if self.config.veto else _SIMULATED[:-1]
        return {"agent": self._inspects(None), **{role: self.model(role) for role in roles}}

    def model(self, role: Role) -> RoleModel:
        """Return the model of one role that is not the agent."""
        return self._own()[role] if role in self._named else self._inspects(role)

    def _own(self) -> dict[Role, RoleModel]:
        if self._loaded is None:
            self._loaded = role_models(registry(), self.config, roles=tuple(self._named))
            _OPEN.append(self)
        return self._loaded

    def _inspects(self, role: Role | None) -> RoleModel:
        model = get_model(role=role) if role else get_model()
        judges = self.config.judges
        return RoleModel(
            ModelName("inspect", str(model)),
            InspectBackend(model, InspectOptions(draws=judges.draws)),
            minimum_mass=_MINIMUM_MASS if judges.minimum_mass is None else judges.minimum_mass,
        )

    async def aclose(self) -> None:
        """Release the models that were loaded here; they are loaded anew when asked for again."""
        loaded, self._loaded = self._loaded, None
        if loaded:
            await close_models(loaded)


_OPEN: list[Cast] = []
"""Casts that have loaded models."""


@hooks(name="influence_models", description="Releases the models that tasks of influence have loaded.")
class ReleaseModels(Hooks):
    """Closes what a :class:`Cast` has opened, when the evaluation is over."""

    def enabled(self) -> bool:
        """Return whether there is anything to close."""
        return bool(_OPEN)

    async def on_run_end(self, data: RunEnd) -> None:  # noqa: ARG002
        """Close every model."""
        while _OPEN:
            await _OPEN.pop().aclose()
