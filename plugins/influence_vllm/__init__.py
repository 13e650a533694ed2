"""Local models with vLLM: its engine in this process, a server that we start, or one that is running.

Only hooks live here. vLLM itself is imported when an engine is loaded: a server, started with another Python or given by
its address, needs no vLLM here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from influence_cli.api import Component, hookimpl

if TYPE_CHECKING:
    from influence_cli.api import Backend, ModelCatalog


def _backend() -> Callable[..., Backend]:
    from influence_vllm.making import make_backend

    return make_backend


def _catalog() -> Callable[..., ModelCatalog]:
    from influence_vllm.catalog import VllmCatalog

    return VllmCatalog


@hookimpl
def influence_backends() -> Iterable[Component[Backend]]:
    """Return the backend ``vllm``."""
    from influence_vllm.options import VllmOptions

    summary = "Local models with vLLM: in process, or a server that is started (-o server=start) or given (its address)"
    return [Component("vllm", summary, _backend, VllmOptions, requires=("aiohttp",), free=True)]


@hookimpl
def influence_model_catalogs() -> Iterable[Component[ModelCatalog]]:
    """Return where the weights of these models lie."""
    from influence_vllm.options import VllmOptions

    return [Component("vllm", "The models of transformers, computed by vLLM", _catalog, VllmOptions)]
