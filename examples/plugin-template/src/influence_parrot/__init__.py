"""What the plugin offers. This module is imported at every start, so nothing heavy is imported here."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from influence_cli.api import Component, hookimpl

if TYPE_CHECKING:
    from influence_cli.api import Backend


@hookimpl
def influence_backends() -> Iterable[Component[Backend]]:
    """Return the backend ``parrot``."""
    from influence_parrot.options import ParrotOptions

    return [Component(name="parrot", summary="Repeats what it hears.", load=_load, options=ParrotOptions)]


def _load() -> Callable[..., Backend]:
    from influence_parrot.backend import ParrotBackend

    return ParrotBackend
