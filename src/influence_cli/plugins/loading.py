"""Loading plugins so that a broken one is recorded and harms nobody.

The steps are those of design.md, section 4: built-ins first, where a failure is fatal; then each entry point by itself;
whatever fails is unregistered and recorded with its reason, because a half-registered plugin poisons every later check.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import pluggy

from influence_cli.plugins import hookspecs
from influence_cli.plugins.hookspecs import NAME

BUILT_INS = (
    "influence_cli.backends.builtin",
    "influence_cli.store.builtin",
    "influence_cli.scoring.builtin",
    "influence_cli.training.builtin",
    "influence_cli.sweeps.builtin",
    "influence_cli.launching.builtin",
)
"""Modules of this program that implement hooks, loaded before any plugin."""

DISABLE_VARIABLE = "INFLUENCE_DISABLE_PLUGINS"
"""Names plugins that are not loaded, separated by commas."""

OWN_DISTRIBUTION = "influence-cli"


@dataclass(frozen=True)
class Plugin:
    """A plugin that was loaded, or one that was skipped and why."""

    name: str
    distribution: str
    version: str
    problem: str | None = None
    mend: str | None = None


def load_plugins(
    entry_points: Iterable[metadata.EntryPoint] | None = None, built_ins: Sequence[str] = BUILT_INS
) -> tuple[pluggy.PluginManager, list[Plugin]]:
    """Return a manager with every sound plugin registered, and the list of all, broken ones with their reason."""
    manager = pluggy.PluginManager(NAME)
    manager.add_hookspecs(hookspecs)
    for module in built_ins:
        manager.register(importlib.import_module(module), name=module)
    manager.check_pending()
    plugins: list[Plugin] = []
    disabled = {name.strip() for name in os.environ.get(DISABLE_VARIABLE, "").split(",") if name.strip()}
    found = metadata.entry_points(group=NAME) if entry_points is None else entry_points
    for entry_point in sorted(found, key=lambda entry: (entry.name, entry.value)):
        plugins.append(_load(manager, entry_point, disabled))
    return manager, plugins


def _load(manager: pluggy.PluginManager, entry_point: metadata.EntryPoint, disabled: set[str]) -> Plugin:
    distribution, version = _origin(entry_point)
    name = entry_point.name

    def skipped(problem: str, mend: str) -> Plugin:
        return Plugin(name, distribution, version, problem, mend)

    if name in disabled:
        return skipped("switched off", f"Remove it from {DISABLE_VARIABLE}.")
    if manager.has_plugin(name):
        return skipped(f"another plugin is called {name!r} too", f"Uninstall one: pip uninstall {distribution}")
    try:
        module = entry_point.load()
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - a plugin may even call sys.exit() when imported
        return skipped(told(error), _import_mend(error, distribution))
    try:
        manager.register(module, name=name)
        manager.check_pending()
    except Exception as error:  # noqa: BLE001 - whatever a plugin does wrong is its own problem
        if manager.has_plugin(name):
            manager.unregister(name=name)
        return skipped(told(error), f"Upgrade it, or: pip uninstall {distribution}")
    return Plugin(name, distribution, version)


def _origin(entry_point: metadata.EntryPoint) -> tuple[str, str]:
    """Return name and version of the distribution of ``entry_point``."""
    distribution: Any = entry_point.dist
    if distribution is None:
        return entry_point.value.partition(":")[0].partition(".")[0], "?"
    return str(distribution.name), str(distribution.version)


def told(error: BaseException) -> str:
    """Return ``error`` in one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _import_mend(error: BaseException, distribution: str) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"pip install {error.name.partition('.')[0]}, or: pip uninstall {distribution}"
    return f"Upgrade it, or: pip uninstall {distribution}"
