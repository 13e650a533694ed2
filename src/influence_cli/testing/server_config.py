"""How the test server behaves, and misbehaves."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from influence_cli.schemas.frozen import Frozen

Fault = Literal[
    "rate_limit",
    "server_error",
    "drop",
    "malformed",
    "wrong_shape",
    "empty",
    "long",
    "slow",
    "context_overflow",
    "auth",
    "not_found",
    "quota",
    "filtered",
]
"""What may be wrong with the answer to one request."""

FAULTS: tuple[Fault, ...] = Fault.__args__  # type: ignore[attr-defined]


class ServerConfig(Frozen):
    """Everything that determines the server's answers; ``POST /configure`` changes parts of it."""

    seed: int = Field(default=0, description="Determines all content and which requests fail.")
    models: tuple[str, ...] = Field(default=("test-model",), description="Names that are served, adapters among them.")
    api_key: str | None = Field(default=None, description="Required as a bearer token; null: none needed.")
    slots: int | None = Field(default=None, ge=1, description="Requests answered at once; others wait. null: all.")
    latency: float = Field(default=0.0, ge=0.0, le=60.0, description="Seconds for every request.")
    token_latency: float = Field(default=0.0, ge=0.0, le=1.0, description="Seconds for every token of an answer.")
    spread: float = Field(default=0.0, ge=0.0, le=1.0, description="Latencies vary by this share, up and down.")
    reply_words: int = Field(default=24, ge=1, le=10_000, description="Texts have up to about so many words.")
    texts: tuple[str, ...] = Field(default=(), description="What is said instead of words; one is drawn. Empty: words.")
    logprobs: bool = Field(default=True, description="Whether log-probabilities are given when asked for.")
    split_numbers: bool = Field(default=False, description="Whether each digit is a token, so that 10 is two.")
    max_top_logprobs: int = Field(default=20, ge=0, description="More are refused.")
    shows_top: int | None = Field(
        default=None, ge=1, description="Likeliest tokens really shown, however many are asked for; null: all."
    )
    refuses: tuple[str, ...] = Field(default=(), description="Parameters refused as unsupported.")
    honours_n: bool = Field(default=True, description="Whether n > 1 gives n answers; otherwise one.")
    continues: bool = Field(default=True, description="Whether continue_final_message is honoured; otherwise ignored.")
    shows_end: bool = Field(
        default=False, description="Whether the end of an answer has log-probabilities, as in vLLM."
    )
    reports_usage: bool = Field(default=True, description="Whether answers hold token counts.")
    context_length: int | None = Field(default=None, ge=1, description="Longer prompts are refused; null: none are.")
    retry_after: float | None = Field(default=1.0, ge=0.0, description="Header of 429 answers in seconds; null: none.")
    slow_seconds: float = Field(default=5.0, ge=0.0, le=60.0, description="Of the fault ``slow``.")
    long_bytes: int = Field(default=2**24, ge=1, le=2**28, description="Of the fault ``long``.")
    prefix_cache: bool = Field(default=False, description="Whether beginnings of prompts read before count as cached.")
    batch_seconds: float = Field(default=0.0, ge=0.0, le=600.0, description="From the start of a batch to its end.")
    batch_hold: float = Field(default=0.0, ge=0.0, le=60.0, description="Before a file or batch made is answered for.")
    batch_answered: float = Field(
        default=1.0, ge=0.0, le=1.0, description="Share of a batch answered; it expires below 1."
    )
    inert_adapters: bool = Field(default=False, description="Whether loaded adapters change no completion.")
    faults: dict[Fault, float] = Field(default_factory=dict, description="Share of requests with each fault.")
    script: tuple[Fault | Literal["ok"], ...] = Field(default=(), description="Of the first requests, in their order.")
    tuning_looks: int = Field(default=2, ge=0, description="Looks at a fine-tuning job before it has ended.")
    tuning_ends: Literal["succeeded", "failed", "cancelled"] = Field(
        default="succeeded", description="How fine-tuning jobs end."
    )
