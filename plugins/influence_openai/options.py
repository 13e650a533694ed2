"""What can be set for an OpenAI-compatible server, and where its key comes from.

Invariant: the key is read from the environment when it is needed; it is never part of the options.
"""

from __future__ import annotations

import os
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, JsonValue, field_validator

from influence_cli.api import Frozen, InfluenceError, remember_secret

DEFAULT_BASE_URL = "https://api.openai.com/v1"
_NEUTRAL: dict[str, JsonValue] = {"affects_answers": False}


def _default_base_url() -> str:
    return os.environ.get("OPENAI_BASE_URL") or DEFAULT_BASE_URL


class OpenAIOptions(Frozen):
    """Settings of one OpenAI-compatible server."""

    base_url: str = Field(
        default_factory=_default_base_url,
        validate_default=True,
        description="Address of the API; OPENAI_BASE_URL, else OpenAI's own.",
    )
    api_key_env: str = Field(
        default="OPENAI_API_KEY",
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        description="Environment variable that holds the key.",
        json_schema_extra=_NEUTRAL,
    )
    organisation: str | None = Field(
        default=None, description="OpenAI-Organization to bill.", json_schema_extra=_NEUTRAL
    )
    project: str | None = Field(default=None, description="OpenAI-Project to bill.", json_schema_extra=_NEUTRAL)
    timeout: float = Field(
        default=300.0, gt=0.0, description="Seconds for one request and its answer.", json_schema_extra=_NEUTRAL
    )
    max_concurrency: int = Field(
        default=256, ge=1, le=10_000, description="Most requests in flight at once.", json_schema_extra=_NEUTRAL
    )
    initial_concurrency: int = Field(
        default=64, ge=1, description="Requests in flight at the start; adapts from there.", json_schema_extra=_NEUTRAL
    )
    requests_per_minute: float | None = Field(
        default=None, gt=0.0, description="Rate limit; null: none.", json_schema_extra=_NEUTRAL
    )
    tokens_per_minute: float | None = Field(
        default=None, gt=0.0, description="Rate limit, prompts and replies; null: none.", json_schema_extra=_NEUTRAL
    )
    max_attempts: int = Field(
        default=6, ge=1, le=100, description="Requests for one answer, failures included.", json_schema_extra=_NEUTRAL
    )
    retry_delay: float = Field(
        default=0.5, ge=0.0, description="Seconds: ceiling of the first wait; doubles.", json_schema_extra=_NEUTRAL
    )
    max_retry_delay: float = Field(
        default=30.0, ge=0.0, description="Seconds: ceiling of every wait of our own.", json_schema_extra=_NEUTRAL
    )
    max_pause: float = Field(
        default=300.0, ge=0.0, description="Seconds: longest Retry-After that is obeyed.", json_schema_extra=_NEUTRAL
    )
    outage: float = Field(
        default=300.0,
        ge=0.0,
        description="Seconds that calls wait for a server that has answered before and cannot be reached.",
        json_schema_extra=_NEUTRAL,
    )
    max_response_bytes: int = Field(
        default=8 * 2**20, ge=1024, description="A longer answer is a failure.", json_schema_extra=_NEUTRAL
    )
    token_limit_field: Literal["auto", "max_tokens", "max_completion_tokens"] = Field(
        default="auto", description="How the reply length is limited; auto: by server, then by what it refuses."
    )
    top_logprobs: int = Field(default=20, ge=1, le=100, description="Likeliest tokens to ask for; lowered if refused.")
    logprobs: bool = Field(default=True, description="Whether to ask for log-probabilities; no: always sample.")
    draws: int = Field(default=20, ge=1, le=1000, description="Samples where there are no log-probabilities.")
    assistant_prefix: Literal["auto", "always", "never"] = Field(
        default="auto",
        description="Whether the server continues an answer begun for it; auto: if token counts show it.",
    )
    adapters: bool = Field(default=False, description="Whether LoRA weights are served under their own model names.")
    seeds: bool = Field(default=False, description="Whether the server promises the same answer for the same seed.")
    context_length: int | None = Field(default=None, ge=1, description="Most tokens of prompt and reply, if known.")
    extra_body: dict[str, JsonValue] = Field(default_factory=dict, description="Added to every request; never a key.")

    @field_validator("base_url")
    @classmethod
    def _address(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("write an address that begins with http:// or https://, as in http://localhost:8000/v1")
        if parts.username or parts.password:
            raise ValueError("an address must not hold a user name or password; put the key in an environment variable")
        return value.rstrip("/")

    @property
    def is_openai(self) -> bool:
        """Whether the address is OpenAI's own."""
        return urlsplit(self.base_url).hostname == "api.openai.com"

    def read_key(self) -> str | None:
        """Return the key from the environment; None if there is none and the server may not need one.

        Raises InfluenceError, naming the variable, where OpenAI would refuse or the key cannot be a header.
        """
        key = os.environ.get(self.api_key_env, "").strip()
        if key and not (key.isascii() and key.isprintable()):
            raise InfluenceError(f"{self.api_key_env} holds characters that no key has.", hint="Set it again.")
        if not key and self.is_openai:
            hint = f"Set {self.api_key_env}, or name a server of your own with --base-url."
            raise InfluenceError(f"OpenAI needs a key, and {self.api_key_env} is not set.", hint=hint)
        remember_secret(key)
        return key or None
