"""Backends that come with the core."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from influence_cli.plugins.component import Component
from influence_cli.plugins.hookspecs import hookimpl

if TYPE_CHECKING:
    from influence_cli.backends.protocol import Backend


@hookimpl
def influence_backends() -> Iterable[Component[Backend]]:
    """Return the scripted backend."""
    from influence_cli.backends.scripted import ScriptedOptions

    return [
        Component(
            name="scripted",
            summary="Deterministic answers from a script, for tests and teaching; no model.",
            load=_load_scripted,
            options=ScriptedOptions,
        )
    ]


def _load_scripted() -> Callable[..., Backend]:
    from influence_cli.backends.scripted import ScriptedBackend

    return ScriptedBackend
