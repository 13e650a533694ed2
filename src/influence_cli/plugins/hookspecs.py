"""The whole contract between the program and its plugins.

A plugin is a module named by an entry point of the group ``influence``. It implements any of these hooks as functions
of the same name under :data:`hookimpl`. Hooks take no arguments (but for the commands), are called rarely, and must be
cheap: import heavy things inside ``Component.load``, and pydantic option models inside the hook.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import pluggy

from influence_cli.plugins.component import Component

if TYPE_CHECKING:
    import typer

    from influence_cli.backends.protocol import Backend, ModelCatalog
    from influence_cli.environments.environment import Environment
    from influence_cli.launching.protocol import Launcher
    from influence_cli.scoring.scorers import Scorer
    from influence_cli.store.exporters import Exporter
    from influence_cli.sweeps.protocol import Importance, Searcher
    from influence_cli.training.protocol import Algorithm, Tracker

NAME = "influence"
"""Of the pluggy project and of the entry-point group."""

hookspec = pluggy.HookspecMarker(NAME)
hookimpl = pluggy.HookimplMarker(NAME)


@hookspec
def influence_backends() -> Iterable[Component[Backend]]:  # type: ignore[empty-body]
    """Return model backends; the component's name is what stands before the colon of a model name.

    ``load()`` returns a callable that takes the model name (without backend and adapter) and the validated options.
    """


@hookspec
def influence_model_catalogs() -> Iterable[Component[ModelCatalog]]:  # type: ignore[empty-body]
    """Return, under a backend's name, what lists and fetches its models; ``load()`` gives a callable of the options."""


@hookspec
def influence_environments() -> Iterable[Component[Environment]]:  # type: ignore[empty-body]
    """Return environments written in Python; ``load()`` returns a callable that takes the validated options."""


@hookspec
def influence_environment_paths() -> Iterable[Path]:  # type: ignore[empty-body]
    """Return folders whose sub-folders are environments in YAML."""


@hookspec
def influence_exporters() -> Iterable[Component[Exporter]]:  # type: ignore[empty-body]
    """Return formats for ``influence export --to NAME``; ``load()`` returns a callable that takes the options."""


@hookspec
def influence_algorithms() -> Iterable[Component[Algorithm]]:  # type: ignore[empty-body]
    """Return ways of training, for ``influence train --algo NAME``; ``load()`` gives a callable of the options."""


@hookspec
def influence_scorers() -> Iterable[Component[Scorer]]:  # type: ignore[empty-body]
    """Return scores that need no judge, for ``influence score --with NAME``; ``load()`` gives a callable of the options."""


@hookspec
def influence_trackers() -> Iterable[Component[Tracker]]:  # type: ignore[empty-body]
    """Return what can follow a training run, for ``--tracker NAME``; ``load()`` gives a callable of the options."""


@hookspec
def influence_launchers() -> Iterable[Component[Launcher]]:  # type: ignore[empty-body]
    """Return where work can be started, for ``--launcher NAME``; ``load()`` gives a callable of the options."""


@hookspec
def influence_searchers() -> Iterable[Component[Searcher]]:  # type: ignore[empty-body]
    """Return what proposes the trials of ``influence sweep``; ``load()`` gives a callable of (study, options)."""


@hookspec
def influence_importances() -> Iterable[Component[Importance]]:  # type: ignore[empty-body]
    """Return what measures how much each parameter of a sweep matters; ``load()`` gives a callable of the options."""


@hookspec
def influence_commands(app: typer.Typer) -> None:
    """Add commands to the command line. Called at every start: import nothing heavy outside the command's body."""
