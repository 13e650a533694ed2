"""Exporters that come with the core."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from influence_cli.plugins.component import Component
from influence_cli.plugins.hookspecs import hookimpl

if TYPE_CHECKING:
    from influence_cli.store.exporters import Exporter


@hookimpl
def influence_exporters() -> Iterable[Component[Exporter]]:
    """Return JSON lines, Parquet and labels."""
    from influence_cli.store.exporters import ExporterOptions

    return [
        Component(
            name="jsonl",
            summary="One trajectory a line, as JSON.",
            load=_load_json_lines,
            options=ExporterOptions,
        ),
        Component(
            name="parquet",
            summary="One trajectory a row, for columnar tools.",
            load=_load_parquet,
            options=ExporterOptions,
            requires=("pyarrow",),
            extra="influence-cli[parquet]",
        ),
        Component(
            name="labels",
            summary="One label by a person a line, as CSV; `influence score calibrate` reads it.",
            load=_load_labels,
            options=ExporterOptions,
        ),
    ]


def _load_json_lines() -> Callable[..., Exporter]:
    from influence_cli.store.exporters import JsonLines

    return JsonLines


def _load_parquet() -> Callable[..., Exporter]:
    from influence_cli.store.exporters import Parquet

    return Parquet


def _load_labels() -> Callable[..., Exporter]:
    from influence_cli.store.labels import Labels

    return Labels
