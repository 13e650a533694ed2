"""OpenAI and every server that speaks its chat API: vLLM, llama.cpp, SGLang, LiteLLM, ..."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from influence_cli.api import Component, hookimpl

if TYPE_CHECKING:
    from collections.abc import Callable

    from influence_cli.api import Algorithm, Backend, ModelCatalog


def _backend() -> Callable[..., Backend]:
    from influence_openai.backend import OpenAIBackend

    return OpenAIBackend


def _catalog() -> Callable[..., ModelCatalog]:
    from influence_openai.catalog import OpenAICatalog

    return OpenAICatalog


def _fine_tune() -> Callable[..., Algorithm]:
    from influence_openai.finetuning import OpenAIFineTune

    return OpenAIFineTune


@hookimpl
def influence_backends() -> Iterable[Component[Backend]]:
    """Return the backend ``openai``."""
    from influence_openai.options import OpenAIOptions

    summary = "OpenAI, and any OpenAI-compatible server by --base-url."
    return [Component("openai", summary, _backend, OpenAIOptions, requires=("aiohttp", "orjson"))]


@hookimpl
def influence_model_catalogs() -> Iterable[Component[ModelCatalog]]:
    """Return the list of models that the server offers."""
    from influence_openai.options import OpenAIOptions

    return [Component("openai", "Models that the server offers.", _catalog, OpenAIOptions, requires=("openai",))]


@hookimpl
def influence_algorithms() -> Iterable[Component[Algorithm]]:
    """Return fine-tuning by the provider."""
    from influence_openai.finetuning import FineTuneOptions

    summary = "Fine-tuning of a served model by its provider, on the best conversations."
    return [Component("openai-finetune", summary, _fine_tune, FineTuneOptions, requires=("openai",))]
