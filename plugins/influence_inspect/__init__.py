"""Inspect AI: environments as its tasks, its model providers as a backend, its logs as a format."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from influence_cli.api import Component, hookimpl

if TYPE_CHECKING:
    from collections.abc import Callable

    from influence_cli.api import Backend, Exporter

_REQUIRES = ("inspect_ai",)
_EXTRA = "influence-cli[inspect]"


def _backend() -> Callable[..., Backend]:
    from influence_inspect.backend import InspectBackend

    return InspectBackend


def _exporter() -> Callable[..., Exporter]:
    from influence_inspect.export import InspectLogs

    return InspectLogs


@hookimpl
def influence_backends() -> Iterable[Component[Backend]]:
    """Return the backend ``inspect``."""
    from influence_inspect.options import InspectOptions

    summary = "Any model provider of Inspect AI: inspect:anthropic/..., inspect:google/..."
    return [Component("inspect", summary, _backend, InspectOptions, requires=_REQUIRES, extra=_EXTRA)]


@hookimpl
def influence_exporters() -> Iterable[Component[Exporter]]:
    """Return logs of Inspect AI."""
    from influence_inspect.options import InspectLogOptions

    summary = "A log of Inspect AI (.eval, or .json by --out), for `inspect view` and its readers."
    return [Component("inspect", summary, _exporter, InspectLogOptions, requires=_REQUIRES, extra=_EXTRA)]
