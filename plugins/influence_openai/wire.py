"""Requests and answers in the words of the chat-completions API.

Invariant: what is read is checked; an answer of another shape is a ``CallFailedError`` of kind ``malformed``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from influence_cli.api import (
    CallFailedError,
    FailureKind,
    GenerateRequest,
    Generation,
    Position,
    ToolCall,
    Usage,
    chat_payload,
)
from influence_openai.dialect import Dialect

Payload = dict[str, Any]

_SEED_SPACE = 2**31
"""Servers keep seeds in 32 bits or in a JSON number; more bits would be lost in silence."""
_LONGEST_TOKEN = 100
_LONG_ANYWAY = 20_000
_ROUNDED = 0.01
_BYTES_PER_TOKEN = 4
_MOST_TOKENS = 2**40
"""A count beyond this is a server's mistake."""
_FINISH = {"length": "length", "tool_calls": "tool_calls", "function_call": "tool_calls", "content_filter": "refused"}


class Spent:
    """What the requests of one call took so far; ``estimated`` once an answer held no token counts."""

    def __init__(self) -> None:
        self.requests = 0
        self.prompt = 0
        self.cached = 0
        self.completion = 0
        self.latency = 0.0
        self.estimated = False

    def add(self, answer: Payload, sent: int) -> None:
        """Add the token counts of an answer to ``sent`` bytes; where it holds none, estimates from the lengths."""
        usage = answer.get("usage")
        if not isinstance(usage, dict) or not _count(usage.get("prompt_tokens")):
            self.estimated = True
            self.prompt += estimated_tokens(sent)
            self.completion += _estimated_completion(answer)
            return
        self.prompt += _count(usage.get("prompt_tokens"))
        self.completion += _count(usage.get("completion_tokens"))
        details = usage.get("prompt_tokens_details")
        if isinstance(details, dict):
            self.cached += _count(details.get("cached_tokens"))

    def add_parallel(self, others: Sequence[Spent]) -> None:
        """Add what calls made at the same time took."""
        for other in others:
            self.requests += other.requests
            self.prompt += other.prompt
            self.cached += other.cached
            self.completion += other.completion
            self.estimated = self.estimated or other.estimated
        self.latency += max((other.latency for other in others), default=0.0)

    def usage(self) -> Usage:
        """Return it as a record."""
        return Usage(
            prompt_tokens=self.prompt,
            cached_tokens=min(self.cached, self.prompt),
            completion_tokens=self.completion,
            requests=self.requests,
            latency=self.latency,
        )


def base_payload(
    model: str, messages: list[Payload], dialect: Dialect, *, max_tokens: int, temperature: float, seed: int
) -> Payload:
    """Return what every request holds, in the server's dialect."""
    payload: Payload = {"model": model, "messages": messages, dialect.token_field: max_tokens}
    if dialect.takes("temperature"):
        payload["temperature"] = temperature
    if dialect.takes("seed"):
        payload["seed"] = seed % _SEED_SPACE
    return payload


def generate_payload(model: str, request: GenerateRequest, dialect: Dialect, seed: int) -> Payload:
    """Return the request for a text."""
    sampling = request.sampling
    payload = base_payload(
        request.adapter or model,
        [chat_payload(message) for message in request.messages],
        dialect,
        max_tokens=sampling.max_tokens,
        temperature=sampling.temperature,
        seed=seed,
    )
    if sampling.top_p < 1.0 and dialect.takes("top_p"):
        payload["top_p"] = sampling.top_p
    if sampling.stop and dialect.takes("stop"):
        payload["stop"] = list(sampling.stop)
    if sampling.min_tokens and dialect.takes("min_tokens"):
        payload["min_tokens"] = sampling.min_tokens
    if request.json_schema is not None and dialect.takes("response_format"):
        wanted = {"name": "answer", "schema": request.json_schema, "strict": True}
        payload["response_format"] = {"type": "json_schema", "json_schema": wanted}
    if request.tools:
        payload["tools"] = [
            {
                "type": "function",
                "function": {"name": tool.name, "description": tool.description, "parameters": tool.parameters},
            }
            for tool in request.tools
        ]
    return payload


def read_choices(answer: Payload) -> list[Payload]:
    """Return the answer's choices, at least one."""
    choices = answer.get("choices")
    if not isinstance(choices, list) or not choices or not all(isinstance(choice, dict) for choice in choices):
        error = answer.get("error")
        said = f": {str(error)[:200]}" if error else ""
        raise CallFailedError("malformed", f"The answer holds no choices{said}.")
    return choices


def read_text(choice: Payload) -> str:
    """Return the text of a choice; empty where it has none."""
    message = choice.get("message")
    if not isinstance(message, dict):
        raise CallFailedError("malformed", "A choice of the answer holds no message.")
    content = message.get("content")
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, dict)]
        return "".join(part for part in parts if isinstance(part, str))
    raise CallFailedError("malformed", "The content of the answer is no text.")


def read_generation(answer: Payload, request: GenerateRequest) -> Generation:
    """Return the generated text, without usage; CallFailedError where there is nothing to use."""
    choice = read_choices(answer)[0]
    text = read_text(choice)
    for stop in request.sampling.stop:
        text = text.partition(stop)[0]
    calls = _read_tool_calls(choice["message"].get("tool_calls"))
    finish: Any = _FINISH.get(str(choice.get("finish_reason")), "stop")
    if not text:
        refusal = choice["message"].get("refusal")
        if isinstance(refusal, str) and refusal:
            text, finish = refusal, "refused"
    if calls:
        finish = "tool_calls"
    elif not text.strip():
        kind, message = _nothing(finish)
        raise CallFailedError(kind, message)
    if len(text) > max(_LONG_ANYWAY, _LONGEST_TOKEN * request.sampling.max_tokens):
        allowed = request.sampling.max_tokens
        raise CallFailedError("too_long", f"The answer has {len(text)} characters for at most {allowed} tokens.")
    return Generation(text=text, finish_reason=finish, tool_calls=calls)


def _nothing(finish: str) -> tuple[FailureKind, str]:
    if finish == "refused":
        return "refused", "The server's content filter withheld the answer."
    if finish == "length":
        return "empty", "The token limit was used up before any text (a model that thinks first needs more)."
    return "empty", "The model answered with nothing."


def _read_tool_calls(calls: Any) -> tuple[ToolCall, ...]:
    if not calls:
        return ()
    try:
        return tuple(
            ToolCall(
                id=str(call.get("id") or f"call_{number}"),
                name=call["function"]["name"],
                arguments=_arguments(call["function"].get("arguments")),
            )
            for number, call in enumerate(calls)
        )
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise CallFailedError("malformed", "A tool call of the answer cannot be read.") from error


def _arguments(arguments: Any) -> Any:
    return orjson.loads(arguments or b"{}") if isinstance(arguments, str) or arguments is None else arguments


def read_positions(choice: Payload) -> list[Position] | None:
    """Return the positions of the answer with their likeliest tokens; None where the server gives none."""
    logprobs = choice.get("logprobs")
    if not isinstance(logprobs, dict):
        return None
    content = logprobs.get("content")
    if not isinstance(content, list):
        return None
    try:
        positions = [
            Position(
                _text(entry["token"]),
                tuple(
                    (_text(top["token"]), _log_probability(top["logprob"])) for top in entry.get("top_logprobs") or ()
                ),
            )
            for entry in content
        ]
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise CallFailedError("malformed", "The log-probabilities of the answer cannot be read.") from error
    return None if positions and not positions[0].top else positions


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("a token that is no text")
    return value


def _log_probability(value: Any) -> float:
    """Return a logarithm of a probability; ValueError for one that is none (rounding puts some a little above 0)."""
    number = float(value)
    if not number <= _ROUNDED:
        raise ValueError("a probability above 1")
    return min(number, 0.0)


def estimated_tokens(length: int) -> int:
    """Return about how many tokens ``length`` bytes are; at least one."""
    return max(1, length // _BYTES_PER_TOKEN)


def _estimated_completion(answer: Payload) -> int:
    choices = answer.get("choices")
    found = (
        [choice.get("message") for choice in choices if isinstance(choice, dict)] if isinstance(choices, list) else []
    )
    texts = [message.get("content") for message in found if isinstance(message, dict)]
    return sum(estimated_tokens(len(text.encode())) for text in texts if isinstance(text, str) and text)


def _count(value: Any) -> int:
    return value if isinstance(value, int) and 0 < value < _MOST_TOKENS else 0
