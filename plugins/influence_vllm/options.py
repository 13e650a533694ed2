"""What can be set for vLLM; the same for its engine in this process and for a server that we start."""

from __future__ import annotations

from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, JsonValue, field_validator, model_validator

from influence_cli.api import Frozen

IN_PROCESS = "in-process"
START = "start"
MIB = 1024 * 1024
_NEUTRAL: dict[str, JsonValue] = {"affects_answers": False}
_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""The ranks that vLLM makes room for."""


class VllmOptions(Frozen):
    """How vLLM loads and serves a model (``-o key=value``)."""

    server: str = Field(
        default=IN_PROCESS,
        description="in-process: the engine; start: we start `vllm serve`; or the address of a running server.",
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto", description="Of weights and cache; auto: the model's own."
    )
    quantization: str | None = Field(
        default=None, description="fp8, awq, gptq, ...; default: what the model's files say."
    )
    revision: str | None = Field(default=None, description="Branch, tag or commit of a model on the hub.")
    context_length: int | None = Field(
        default=None, ge=8, description="Most tokens of prompt and reply; default: the model's."
    )
    tensor_parallel: int = Field(
        default=1, ge=1, description="GPUs that share every layer.", json_schema_extra=_NEUTRAL
    )
    pipeline_parallel: int = Field(
        default=1, ge=1, description="Groups of GPUs that share the layers.", json_schema_extra=_NEUTRAL
    )
    data_parallel: int = Field(
        default=1, ge=1, description="Copies of the model that share the requests.", json_schema_extra=_NEUTRAL
    )
    gpu_memory: float = Field(
        default=0.9, gt=0.0, le=1.0, description="Share of a GPU's memory to use.", json_schema_extra=_NEUTRAL
    )
    cache_mib: int | None = Field(
        default=None,
        ge=16,
        description="Memory for keys and values; default: 1280 on a processor in this process, what is left on a GPU.",
        json_schema_extra=_NEUTRAL,
    )
    cache_dtype: str = Field(default="auto", description="Of keys and values: auto, fp8, ...")
    block_size: int | None = Field(
        default=None,
        ge=1,
        description="Tokens that are shared or computed together; default: 32 on a processor in this process, else vLLM's.",
        json_schema_extra=_NEUTRAL,
    )
    max_rows: int | None = Field(
        default=None, ge=16, description="Most tokens computed at once; default: vLLM's.", json_schema_extra=_NEUTRAL
    )
    max_running: int | None = Field(
        default=None, ge=1, description="Most requests computed at once; default: vLLM's.", json_schema_extra=_NEUTRAL
    )
    eager: bool = Field(
        default=False, description="Compile nothing: ready sooner, slower afterwards.", json_schema_extra=_NEUTRAL
    )
    threads: int | None = Field(
        default=None, ge=1, description="Threads of a processor; default: vLLM's choice.", json_schema_extra=_NEUTRAL
    )
    adapters: bool = Field(default=True, description="Whether requests may name LoRA weights; no saves memory.")
    max_loras: int = Field(
        default=4, ge=1, le=256, description="Adapters loaded at once; others wait.", json_schema_extra=_NEUTRAL
    )
    max_lora_rank: int = Field(default=64, description="Highest rank of an adapter.", json_schema_extra=_NEUTRAL)
    between: Literal["release", "sleep"] = Field(
        default="release",
        description="When nobody uses the model, as during training: release it, or keep its weights in main memory (GPU).",
        json_schema_extra=_NEUTRAL,
    )
    trust_remote_code: bool = Field(default=False, description="Run Python code that comes with the model. Dangerous.")
    engine_arguments: dict[str, JsonValue] = Field(
        default_factory=dict, description="More arguments of vLLM's engine, by its own names."
    )
    python: str | None = Field(
        default=None,
        description="Python of the environment that has vLLM, for server=start; default: this one.",
        json_schema_extra=_NEUTRAL,
    )
    port: int | None = Field(
        default=None,
        ge=1,
        le=65535,
        description="Of the server we start; default: a free one.",
        json_schema_extra=_NEUTRAL,
    )
    log: str | None = Field(
        default=None,
        description="Log of the server we start; default: one in a new temporary folder.",
        json_schema_extra=_NEUTRAL,
    )
    start_seconds: float = Field(
        default=1800.0, gt=0.0, description="Longest start of a server.", json_schema_extra=_NEUTRAL
    )
    max_restarts: int = Field(
        default=3, ge=0, le=100, description="Restarts of a server that died.", json_schema_extra=_NEUTRAL
    )
    max_concurrency: int = Field(
        default=256, ge=1, le=10_000, description="Most requests in flight to a server.", json_schema_extra=_NEUTRAL
    )
    timeout: float = Field(
        default=600.0, gt=0.0, description="Seconds for one answer of a server.", json_schema_extra=_NEUTRAL
    )
    api_key_env: str = Field(
        default="VLLM_API_KEY",
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        description="Environment variable that holds the key of a running server.",
        json_schema_extra=_NEUTRAL,
    )

    @field_validator("server")
    @classmethod
    def _place(cls, value: str) -> str:
        if value in (IN_PROCESS, START):
            return value
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.password:
            raise ValueError("say in-process, start, or an address such as http://localhost:8000/v1")
        address = value.rstrip("/")
        return address if address.endswith("/v1") else f"{address}/v1"

    @field_validator("max_lora_rank")
    @classmethod
    def _rank(cls, value: int) -> int:
        if value not in _RANKS:
            raise ValueError(f"vLLM has room for the ranks {', '.join(map(str, _RANKS))}")
        return value

    @model_validator(mode="after")
    def _fits(self) -> VllmOptions:
        if self.server in (IN_PROCESS, START):
            return self
        ours = {
            "server",
            "context_length",
            "adapters",
            "max_loras",
            "max_concurrency",
            "timeout",
            "api_key_env",
            "between",
        }
        given = sorted(self.model_fields_set - ours)
        if given:
            raise ValueError(f"a running server was loaded with its own settings: {given[0]} changes nothing there")
        return self

    @property
    def address(self) -> str | None:
        """The address of a running server; None where there is none to ask."""
        return None if self.server in (IN_PROCESS, START) else self.server
