"""Hugging Face: runs as data sets, adapters as models, each with its card; and pushing them, when asked to."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from influence_cli.api import Component, hookimpl

if TYPE_CHECKING:
    from collections.abc import Callable

    import typer

    from influence_cli.api import Exporter

_EXTRA = "influence-cli[hub]"


def _datasets() -> Callable[..., Exporter]:
    from influence_hub.dataset import DatasetFolder

    return DatasetFolder


def _adapter() -> Callable[..., Exporter]:
    from influence_hub.adapter import AdapterFolder

    return AdapterFolder


@hookimpl
def influence_exporters() -> Iterable[Component[Exporter]]:
    """Return data sets and adapters as folders for the hub."""
    from influence_hub.options import AdapterOptions, DatasetOptions

    return [
        Component(
            "datasets",
            "A folder that `datasets.load_dataset` reads, with a dataset card.",
            _datasets,
            DatasetOptions,
            requires=("pyarrow",),
            extra=_EXTRA,
        ),
        Component("adapter", "A trained adapter with a model card that states its harms.", _adapter, AdapterOptions),
    ]


@hookimpl
def influence_commands(app: typer.Typer) -> None:
    """Add ``influence push``."""
    from influence_hub.command import push

    app.command()(push)
