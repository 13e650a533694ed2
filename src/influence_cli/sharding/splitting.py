"""How a run is split, and who starts the parts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from influence_cli.launching.protocol import Launcher, Resources
from influence_cli.plugins.registry import PluginRegistry
from influence_cli.resolution import LOCAL, check_launcher, launcher_with


@dataclass(frozen=True)
class Launching:
    """Who starts processes, and how they are minded: what ``--launcher`` and the flags beside it say.

    ``name`` is that of a launcher, ``options`` are its own (``influence plugins show NAME``); ``resources`` is what each
    process needs; one without a call for ``hang_after`` seconds is started anew, as one that died is, ``restarts`` times
    at most.
    """

    name: str = LOCAL
    options: Mapping[str, Any] = field(default_factory=dict)
    resources: Resources = field(default_factory=Resources)
    hang_after: float = 900.0
    restarts: int = 3


@dataclass(frozen=True)
class Sharding:
    """A run that is split into ``count`` parts: the launcher itself, and how it was asked for."""

    count: int
    launcher: Launcher
    how: Launching


def sharding_with(registry: PluginRegistry, count: int | None, how: Launching) -> Sharding:
    """Return how work is split, into one part unless said otherwise; InfluenceError for what is wrong."""
    check_launcher(registry, how.name, how.options)
    return Sharding(count or 1, launcher_with(registry, how.name, how.options), how)
