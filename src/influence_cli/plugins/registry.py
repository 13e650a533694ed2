"""What all plugins together offer, by kind and name.

Invariant: asked for by name, a component is returned or the reason is raised; found by scanning, a broken one is shown
and passed over.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from influence_cli.errors import InfluenceError, UnknownNameError
from influence_cli.plugins.component import AnyComponent, Component
from influence_cli.plugins.loading import OWN_DISTRIBUTION, Plugin, load_plugins, told

if TYPE_CHECKING:
    import pluggy

Kind = Literal[
    "backend",
    "catalog",
    "environment",
    "exporter",
    "algorithm",
    "scorer",
    "tracker",
    "launcher",
    "searcher",
    "importance",
]
A = TypeVar("A")
State = Literal["ok", "unavailable", "duplicate", "broken"]

HOOKS: dict[Kind, str] = {
    "backend": "influence_backends",
    "catalog": "influence_model_catalogs",
    "environment": "influence_environments",
    "exporter": "influence_exporters",
    "algorithm": "influence_algorithms",
    "scorer": "influence_scorers",
    "tracker": "influence_trackers",
    "launcher": "influence_launchers",
    "searcher": "influence_searchers",
    "importance": "influence_importances",
}
"""Which hook offers components of which kind."""


@dataclass(frozen=True)
class Offer:
    """A component as a plugin offers it: whose it is, and whether it can be used."""

    kind: Kind
    component: AnyComponent
    distribution: str
    version: str
    state: State = "ok"
    problem: str | None = None
    mend: str | None = None


class PluginRegistry:
    """All plugins of this process; made once by the command line and passed down."""

    def __init__(self, manager: pluggy.PluginManager, plugins: list[Plugin]) -> None:
        self._manager = manager
        self._plugins = plugins
        self._failures: list[Plugin] = []

    @property
    def plugins(self) -> list[Plugin]:
        """Every plugin that is not built in, loaded or skipped."""
        return list(self._plugins)

    @property
    def problems(self) -> list[Plugin]:
        """Plugins that were skipped, and hooks of loaded ones that failed."""
        return [plugin for plugin in self._plugins if plugin.problem] + self._failures

    def plugin_versions(self) -> dict[str, str]:
        """Return the version of each third-party distribution that offers a plugin."""
        loaded = [plugin for plugin in self._plugins if not plugin.problem]
        return {p.distribution: p.version for p in loaded if p.distribution != OWN_DISTRIBUTION}

    # -- components ---------------------------------------------------------------------------------------------------

    def offers(self, kind: Kind) -> list[Offer]:
        """Return every component of ``kind``, usable or not, by name."""
        return self._offers[kind]

    def component(self, kind: Kind, name: str) -> AnyComponent:
        """Return the usable component called ``name``.

        Raises UnknownNameError with the nearest names and the plugins that were skipped, or InfluenceError with the
        mend if its requirements are missing or two distributions offer it.
        """
        found = [offer for offer in self.offers(kind) if offer.component.name == name]
        if not found:
            known = [offer.component.name for offer in self.offers(kind)]
            raise UnknownNameError(kind, name, known, note=self._skipped_note())
        offer = next((offer for offer in found if offer.state == "ok"), found[0])
        if offer.state != "ok":
            raise InfluenceError(f"The {kind} {name!r} cannot be used: {offer.problem}.", hint=offer.mend)
        return offer.component

    def environment_paths(self) -> list[Path]:
        """Return the folders of environments that plugins bring."""
        paths: list[Path] = []
        for plugin, values in self._call("influence_environment_paths"):
            for value in values:
                if isinstance(value, str | Path):
                    paths.append(Path(value))
                else:
                    problem = f"influence_environment_paths offers a {type(value).__name__} in place of a Path"
                    self.record_problem(_broken(plugin, problem))
        return paths

    def commands(self, make_app: Callable[[], A]) -> Iterator[tuple[Plugin, A]]:
        """Yield every plugin that brings commands, with an app made by ``make_app`` that it has filled."""
        for implementation in self._manager.hook.influence_commands.get_hookimpls():
            app = make_app()
            plugin = self._plugin(implementation.plugin_name)
            if self._answer(plugin, "influence_commands", implementation.function, app=app) is not None:
                yield plugin, app

    def record_problem(self, plugin: Plugin) -> None:
        """Remember something that is wrong with a loaded plugin."""
        if plugin not in self._failures:
            self._failures.append(plugin)

    @cached_property
    def _offers(self) -> dict[Kind, list[Offer]]:
        return {kind: self._collect(kind, hook) for kind, hook in HOOKS.items()}

    def _collect(self, kind: Kind, hook: str) -> list[Offer]:
        found: list[Offer] = []
        for plugin, components in self._call(hook):
            for component in components:
                found.append(_offer(kind, component, plugin))
        owners: dict[str, list[Offer]] = {}
        for offer in found:
            if offer.state != "broken":
                owners.setdefault(offer.component.name, []).append(offer)
        return sorted(
            (_duplicate(offer, owners) if len(owners.get(offer.component.name, ())) > 1 else offer for offer in found),
            key=lambda offer: (offer.component.name, offer.distribution),
        )

    def _call(self, hook: str) -> Iterator[tuple[Plugin, list[Any]]]:
        """Yield each plugin's answer to ``hook``, one by one, so that a failure has a name."""
        for implementation in getattr(self._manager.hook, hook).get_hookimpls():
            plugin = self._plugin(implementation.plugin_name)
            values = self._answer(plugin, hook, implementation.function)
            if values is not None:
                yield plugin, values

    def _answer(self, plugin: Plugin, hook: str, function: Callable[..., Any], **arguments: Any) -> list[Any] | None:
        """Return what ``function`` answers, as a list; None if it failed, which is recorded under the plugin's name."""
        try:
            answer = function(**arguments)
            return [] if answer is None else list(answer)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - a plugin's failure is shown under its name, and is its own
            self.record_problem(_broken(plugin, f"{hook} failed: {told(error)}"))
            return None

    def _plugin(self, name: str) -> Plugin:
        for plugin in self._plugins:
            if plugin.name == name:
                return plugin
        from influence_cli import __version__

        return Plugin(name, OWN_DISTRIBUTION, __version__)

    def _skipped_note(self) -> str:
        skipped = [f"{plugin.name} ({plugin.problem})" for plugin in self.problems]
        return f"Skipped plugins: {'; '.join(skipped)}." if skipped else ""


def make_registry() -> PluginRegistry:
    """Return the registry of everything installed."""
    return PluginRegistry(*load_plugins())


def _broken(plugin: Plugin, problem: str) -> Plugin:
    """Return ``plugin`` with ``problem`` and what mends it."""
    mend = f"Upgrade it, or: pip uninstall {plugin.distribution}"
    return Plugin(plugin.name, plugin.distribution, plugin.version, problem, mend)


def _offer(kind: Kind, component: Any, plugin: Plugin) -> Offer:
    problem = _malformed(component)
    if problem is not None:
        shown = _placeholder(component)
        mend = f"Upgrade it, or: pip uninstall {plugin.distribution}"
        return Offer(kind, shown, plugin.distribution, plugin.version, "broken", problem, mend)
    missing = [name for name in component.requires if not _installed(name)]
    if missing:
        mend = f"pip install '{component.extra}'" if component.extra else f"pip install {' '.join(missing)}"
        problem = f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed"
        return Offer(kind, component, plugin.distribution, plugin.version, "unavailable", problem, mend)
    return Offer(kind, component, plugin.distribution, plugin.version)


def _malformed(component: Any) -> str | None:
    """Return what is wrong with a component, if anything is."""
    from pydantic import BaseModel

    if not isinstance(component, Component):
        return f"offers a {type(component).__name__} in place of a Component"
    if not isinstance(component.name, str) or not component.name:
        return "offers a component without a name"
    if not callable(component.load):
        return f"{component.name}: load is not callable"
    if not _is_names(component.requires):
        return f"{component.name}: requires is no tuple of import names"
    if not (isinstance(component.options, type) and issubclass(component.options, BaseModel)):
        return f"{component.name}: options is no pydantic model"
    return None


def _is_names(value: Any) -> bool:
    return isinstance(value, tuple | list) and all(isinstance(name, str) for name in value)


def _placeholder(value: Any) -> AnyComponent:
    """Return a component that stands for a malformed one wherever components are listed."""
    from influence_cli.schemas.frozen import Frozen

    name = getattr(value, "name", None) if isinstance(value, Component) else None
    shown = name if isinstance(name, str) and name else f"<{type(value).__name__}>"
    return Component(name=shown, summary="", load=lambda: Frozen, options=Frozen)


def _installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def _duplicate(offer: Offer, owners: dict[str, list[Offer]]) -> Offer:
    if offer.state == "broken":
        return offer
    names = sorted({other.distribution for other in owners[offer.component.name]})
    if len(names) == 1:
        problem, first = f"{names[0]} offers more than one {offer.kind} of this name", "Upgrade it, or"
    else:
        problem, first = f"{' and '.join(names)} both offer a {offer.kind} of this name", "Uninstall one"
    mend = f"{first}: pip uninstall {offer.distribution}"
    return Offer(offer.kind, offer.component, offer.distribution, offer.version, "duplicate", problem, mend)
