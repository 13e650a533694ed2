"""Sizes of models: parameters and widths, from ``config.json`` where it is on this machine, else from a short list.

Nothing here loads a model; figures are for estimates, and weights are counted without biases and norms.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson


@dataclass(frozen=True)
class ModelShape:
    """What memory and time depend on. Widths in elements; ``tied``: input and output embeddings are one matrix."""

    hidden: int
    layers: int
    inner: int
    heads: int
    kv_heads: int
    vocabulary: int
    head: int
    tied: bool = False

    @property
    def parameters(self) -> int:
        """Weights of the model."""
        block = sum(rows * columns for rows, columns in self.projections)
        return self.layers * block + self.vocabulary * self.hidden * (1 if self.tied else 2)

    @property
    def projections(self) -> tuple[tuple[int, int], ...]:
        """Shapes of q, k, v, o, gate, up and down of one block."""
        query, key = self.heads * self.head, self.kv_heads * self.head
        attention = ((self.hidden, query), (self.hidden, key), (self.hidden, key), (query, self.hidden))
        return (*attention, (self.hidden, self.inner), (self.hidden, self.inner), (self.inner, self.hidden))

    def lora_parameters(self, rank: int) -> int:
        """Return the weights of LoRA of this rank on all seven projections."""
        return self.layers * sum(rank * (rows + columns) for rows, columns in self.projections)


KNOWN: Mapping[str, ModelShape] = {
    "smollm2": ModelShape(576, 30, 1536, 9, 3, 49152, 64, tied=True),
    "meta-llama/Meta-Llama-3-8B-Instruct": ModelShape(4096, 32, 14336, 32, 8, 128256, 128),
    "meta-llama/Llama-3.1-8B-Instruct": ModelShape(4096, 32, 14336, 32, 8, 128256, 128),
    "meta-llama/Meta-Llama-3-70B-Instruct": ModelShape(8192, 80, 28672, 64, 8, 128256, 128),
    "meta-llama/Llama-3.1-70B-Instruct": ModelShape(8192, 80, 28672, 64, 8, 128256, 128),
    "google/gemma-2-2b-it": ModelShape(2304, 26, 9216, 8, 4, 256000, 256, tied=True),
    "google/gemma-2-9b-it": ModelShape(3584, 42, 14336, 16, 8, 256000, 256, tied=True),
    "google/gemma-2-27b-it": ModelShape(4608, 46, 36864, 32, 16, 256000, 128, tied=True),
}
"""From the models' own ``config.json`` files."""


def find_shape(model: str) -> ModelShape | None:
    """Return the shape of a model (its name without backend), if anything on this machine tells it."""
    folder = Path(model).expanduser()
    if (folder / "config.json").is_file():
        return _read(folder / "config.json")
    if model in KNOWN:
        return KNOWN[model]
    home = Path(os.environ.get("HF_HOME", "~/.cache/huggingface")).expanduser()
    snapshots = home / "hub" / f"models--{model.replace('/', '--')}" / "snapshots"
    for path in sorted(snapshots.glob("*/config.json")):
        return _read(path)
    return None


def _read(path: Path) -> ModelShape | None:
    try:
        data: dict[str, Any] = orjson.loads(path.read_bytes())
        data = data.get("text_config", data)
        heads = int(data["num_attention_heads"])
        return ModelShape(
            hidden=int(data["hidden_size"]),
            layers=int(data["num_hidden_layers"]),
            inner=int(data["intermediate_size"]),
            heads=heads,
            kv_heads=int(data.get("num_key_value_heads") or heads),
            vocabulary=int(data["vocab_size"]),
            head=int(data.get("head_dim") or int(data["hidden_size"]) // heads),
            tied=bool(data.get("tie_word_embeddings", False)),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
