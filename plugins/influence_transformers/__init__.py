"""Local models with transformers, and the embedded default ``transformers:smollm2``.

Only hooks live here; whatever needs torch or transformers is imported when a component is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from influence_cli.api import Component, hookimpl

if TYPE_CHECKING:
    from influence_cli.api import Backend, ModelCatalog

_REQUIRES = ("torch", "transformers", "safetensors", "accelerate", "gguf", "peft")
_EXTRA = "influence-cli[local]"


def _load_backend() -> Callable[..., Backend]:
    from influence_transformers.backend import TransformersBackend

    return TransformersBackend


def _load_catalog() -> Callable[..., ModelCatalog]:
    from influence_transformers.catalog import TransformersCatalog

    return TransformersCatalog


@hookimpl
def influence_backends() -> Iterable[Component[Backend]]:
    """Return the local backend."""
    from influence_transformers.options import TransformersOptions

    return [
        Component(
            name="transformers",
            summary="Local models: smollm2, Hugging Face names, folders, GGUF files",
            load=_load_backend,
            options=TransformersOptions,
            requires=_REQUIRES,
            extra=_EXTRA,
            free=True,
        )
    ]


@hookimpl
def influence_model_catalogs() -> Iterable[Component[ModelCatalog]]:
    """Return the catalogue of local models."""
    from influence_transformers.options import TransformersOptions

    return [
        Component(
            name="transformers",
            summary="smollm2 and the models in the Hugging Face cache",
            load=_load_catalog,
            options=TransformersOptions,
            requires=_REQUIRES,
            extra=_EXTRA,
        )
    ]
