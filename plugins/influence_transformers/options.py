"""Settings of the local backend."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from influence_cli.api import Frozen

MIB = 1024 * 1024


class TransformersOptions(Frozen):
    """How a local model is loaded and run (``-o key=value``)."""

    device: str = Field(default="auto", description="auto, cpu, mps, cuda or cuda:N.")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto", description="Of weights and cache; auto: float32 on cpu, bfloat16 on cuda, float16 on mps."
    )
    revision: str | None = Field(default=None, description="Branch, tag or commit of a model on the hub.")
    cache_mib: int | None = Field(
        default=None,
        ge=16,
        description="Memory for keys and values; default: 1536 on cpu (1088 where torch computes), 70 % of a GPU's.",
    )
    max_rows: int | None = Field(
        default=None, ge=16, description="Most tokens computed at once; default: 512, 8192 on cuda."
    )
    max_running: int | None = Field(
        default=None, ge=1, description="Most requests computed at once; default: 64, 256 on cuda."
    )
    context_length: int | None = Field(
        default=None, ge=8, description="Most tokens of prompt and reply; default: the model's."
    )
    threads: int | None = Field(default=None, ge=1, description="CPU threads; default: torch's own choice.")
    trust_remote_code: bool = Field(default=False, description="Run Python code that comes with the model. Dangerous.")
    engine: Literal["auto", "packed", "plain"] = Field(
        default="auto", description="packed batches requests and shares prefixes; plain runs one request at a time."
    )
    record: bool = Field(
        default=True,
        description="On cuda: record passes of few tokens once for each size (CUDA graphs) and play them back.",
    )
    native: bool = Field(
        default=True,
        description="On cpu, in float32: compute by kernels of our own, compiled once by the machine's C compiler.",
    )
