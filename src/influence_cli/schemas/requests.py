"""What a backend is asked and what it answers."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field, JsonValue, model_validator

from influence_cli.schemas.frozen import Frozen
from influence_cli.schemas.messages import ChatMessage, Role, ToolCall

ChoiceMethod = Literal["exact", "logprobs", "sampled", "scripted"]
"""How a distribution was got: all tokens of every choice from the logits; from an API's top log-probabilities; by
counting samples; written down beforehand."""

FinishReason = Literal["stop", "length", "tool_calls", "refused"]

_TOLERANCE = 1e-6


class Sampling(Frozen):
    """How text is drawn from a model."""

    temperature: float = Field(default=1.0, ge=0.0, le=10.0, description="0 takes the likeliest token each time.")
    top_p: float = Field(default=1.0, gt=0.0, le=1.0, description="Nucleus: the likeliest tokens with this much mass.")
    max_tokens: int = Field(default=300, ge=1, description="Most tokens of one reply.")
    min_tokens: int = Field(default=0, ge=0, description="Fewest tokens of one reply, where the backend can force it.")
    stop: tuple[str, ...] = Field(default=(), description="Strings that end a reply; they are not part of it.")


class ToolSchema(Frozen):
    """A tool that the agent may call."""

    name: str = Field(description="The tool's name.")
    description: str = Field(description="What the agent is told of it.")
    parameters: dict[str, JsonValue] = Field(description="A JSON schema of the arguments.")


class GenerateRequest(Frozen):
    """A prompt to be answered with text.

    ``seed`` determines the answer on a backend that honours seeds, whatever else runs beside it.
    """

    role: Role = Field(description="For whom the model speaks.")
    messages: tuple[ChatMessage, ...] = Field(min_length=1, description="The prompt.")
    sampling: Sampling = Field(default_factory=Sampling, description="How the answer is drawn.")
    seed: int = Field(default=0, ge=0, lt=2**63, description="Determines the random draws.")
    adapter: str | None = Field(default=None, description="Path or name of LoRA weights to apply.")
    tools: tuple[ToolSchema, ...] = Field(default=(), description="Tools the answer may call.")
    json_schema: dict[str, JsonValue] | None = Field(
        default=None, description="The answer is a JSON object that follows this schema."
    )


class ChoiceRequest(Frozen):
    """A prompt to be answered with exactly one of a closed list of strings."""

    role: Role = Field(description="For whom the model speaks.")
    messages: tuple[ChatMessage, ...] = Field(min_length=1, description="The prompt, the question last.")
    choices: tuple[str, ...] = Field(min_length=2, description="The strings that may be answered, all different.")
    seed: int = Field(default=0, ge=0, lt=2**63, description="Determines the draws where a backend has to sample.")
    adapter: str | None = Field(default=None, description="Path or name of LoRA weights to apply.")
    draws: int | None = Field(default=None, ge=1, description="Samples to draw where the backend has to sample.")

    @model_validator(mode="after")
    def _different(self) -> ChoiceRequest:
        if len(set(self.choices)) != len(self.choices) or any(c != c.strip() or not c for c in self.choices):
            raise ValueError("choices must be different, non-empty and without space around them")
        return self


class Usage(Frozen):
    """What one answer took. Tokens; seconds from the first request sent to the answer; requests really sent."""

    prompt_tokens: int = Field(default=0, ge=0, description="Tokens of the prompt, cached ones included.")
    cached_tokens: int = Field(default=0, ge=0, description="Prompt tokens that were not computed again.")
    completion_tokens: int = Field(default=0, ge=0, description="Tokens generated.")
    requests: int = Field(default=1, ge=0, description="Requests really sent, retries included; 0 for a cache hit.")
    latency: float = Field(default=0.0, ge=0.0, description="Seconds, waiting for limits not included.")
    cached: bool = Field(default=False, description="Whether the answer came from the answer cache.")


class Generation(Frozen):
    """A text answered by a model."""

    text: str = Field(description="The reply, without stop strings and control tokens.")
    finish_reason: FinishReason = Field(default="stop", description="Why it ended.")
    tool_calls: tuple[ToolCall, ...] = Field(default=(), description="Calls the reply makes.")
    usage: Usage = Field(default_factory=Usage, description="What it took.")


class Distribution(Frozen):
    """Probabilities over a closed list of choices.

    ``probabilities`` are normalised over the choices; ``mass`` is the probability that the model gave to the choices
    before that, so 1 - mass is what it would rather have said.
    """

    choices: tuple[str, ...] = Field(min_length=1, description="What could be answered.")
    probabilities: tuple[float, ...] = Field(description="Of each choice; they sum to one.")
    mass: float = Field(ge=0.0, le=1.0, description="Probability of all choices together, before normalising.")
    method: ChoiceMethod = Field(description="How it was got.")
    draws: int | None = Field(default=None, description="For ``sampled``: how many samples were counted.")
    usage: Usage = Field(default_factory=Usage, description="What it took.")

    @model_validator(mode="after")
    def _normalised(self) -> Distribution:
        if len(self.probabilities) != len(self.choices):
            raise ValueError("a probability is needed for every choice")
        if min(self.probabilities) < 0.0 or abs(math.fsum(self.probabilities) - 1.0) > _TOLERANCE:
            raise ValueError("probabilities must be non-negative and sum to one")
        return self

    def probability(self, choice: str) -> float:
        """Return the probability of ``choice``; ValueError if it is not one of the choices."""
        return self.probabilities[self.choices.index(choice)]

    @property
    def expected_value(self) -> float | None:
        """The mean of the choices read as numbers; None if one of them is not a number."""
        try:
            values = [float(choice) for choice in self.choices]
        except ValueError:
            return None
        return math.fsum(v * p for v, p in zip(values, self.probabilities, strict=True))

    def draw(self, point: float) -> str:
        """Return the choice at ``point`` in [0, 1) of the cumulative distribution."""
        total = 0.0
        for choice, probability in zip(self.choices, self.probabilities, strict=True):
            total += probability
            if point < total:
                return choice
        return self.choices[max(range(len(self.choices)), key=self.probabilities.__getitem__)]


class Capabilities(Frozen):
    """What a backend can do."""

    logprobs: bool = Field(description="Whether ``choose`` reads probabilities instead of counting samples.")
    seeds: bool = Field(description="Whether the same request and seed always give the same answer.")
    adapters: bool = Field(default=False, description="Whether requests may name LoRA weights.")
    prefix_cache: bool = Field(default=False, description="Whether shared beginnings of prompts are computed once.")
    context_length: int | None = Field(default=None, description="Most tokens of prompt and reply; None: unknown.")
    cache_tokens: int | None = Field(
        default=None, description="Tokens of prompts and replies whose reading it can keep; None: unknown."
    )
    max_concurrency: int | None = Field(default=None, description="Most requests worth having in flight at once.")
    compute_bound: bool = Field(
        default=False,
        description="Whether each token delays all other requests, as on a processor: then nothing is asked for ahead.",
    )


class ModelInfo(Frozen):
    """A model that a backend knows by name."""

    name: str = Field(description="``backend:model``.")
    state: Literal["ready", "fetchable", "served"] = Field(
        description="On this machine, to be fetched, or on a server."
    )
    summary: str = Field(default="", description="One line.")
    path: str | None = Field(default=None, description="Where it lies, if on this machine.")
    size_bytes: int | None = Field(default=None, ge=0, description="Of its files, if known.")
