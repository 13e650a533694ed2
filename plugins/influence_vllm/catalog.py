"""Where the weights of a model lie that vLLM computes: where the backend ``transformers`` has them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from influence_cli.api import InfluenceError, ModelInfo, model_folder, reporting_to
from influence_vllm.options import VllmOptions


class VllmCatalog:
    """The models of ``transformers``: the same names, the same folders."""

    def __init__(self, options: VllmOptions) -> None:
        self._options = options

    def models(self) -> Sequence[ModelInfo]:
        """Return none of its own: what ``transformers`` lists can be named ``vllm:`` as well."""
        return []

    def pull(self, name: str, progress: Callable[[str, float], None]) -> Path:
        """Fetch a model and return its folder; InfluenceError for one that a running server has."""
        if self._options.address is not None:
            raise InfluenceError(f"{name} is served by {self._options.address}; there is nothing to fetch.")
        with reporting_to(progress):
            return model_folder(f"transformers:{name}")
