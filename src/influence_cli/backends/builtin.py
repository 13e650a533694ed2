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
    """Return the scripted backend, and the person at the terminal."""
    from influence_cli.backends.scripted import ScriptedOptions
    from influence_cli.backends.terminal import TerminalOptions

    return [
        Component(
            name="scripted",
            summary="Deterministic answers from a script, for tests and teaching; no model.",
            load=_load_scripted,
            options=ScriptedOptions,
            free=True,
        ),
        Component(
            name="terminal",
            summary="A person at this terminal in the place of a model; NAME is how they are called.",
            load=_load_terminal,
            options=TerminalOptions,
            free=True,
        ),
    ]


def _load_scripted() -> Callable[..., Backend]:
    from influence_cli.backends.scripted import ScriptedBackend

    return ScriptedBackend


def _load_terminal() -> Callable[..., Backend]:
    from influence_cli.backends.terminal import TerminalBackend

    return TerminalBackend
