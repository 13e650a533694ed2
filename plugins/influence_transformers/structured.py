"""Answers that follow a JSON schema, by construction.

Concept: the object is written field by field. What the schema fixes (braces, names, quotes) is put there, not generated;
a string is generated up to its closing quote; a value out of few is drawn from the exact probabilities of all of them,
its delimiter included. Invariant: what is returned parses and fits the schema, however weak the model.
"""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import dataclass, field
from typing import Any

from influence_cli.api import (
    CallFailedError,
    GenerateRequest,
    Generation,
    Sampling,
    Usage,
    derive_seed,
    normalised,
    unit_draw,
)
from influence_transformers.engine.sequences import ChoiceResult, TextResult
from influence_transformers.engines import Engine

_MOST_VALUES = 64
_MOST_ITEMS = 8
_STRING_TOKENS = 160
_CONTROL = re.compile(r"[\x00-\x1f\x7f]+")


@dataclass
class _Writer:
    """An answer being written: ``text`` so far, and what it took."""

    engine: Engine
    request: GenerateRequest
    text: str = ""
    parts: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    values: dict[str, Any] = field(default_factory=dict)

    async def string(self, schema: dict[str, Any]) -> str:
        """Write a string's text and closing quote; the opening one stands already."""
        sampling = self.request.sampling
        most = min(int(schema.get("maxLength", 4 * sampling.max_tokens)) // 3 + 1, sampling.max_tokens, _STRING_TOKENS)
        drawn = Sampling(temperature=sampling.temperature, top_p=sampling.top_p, max_tokens=most, stop=('"', "\n"))
        request = self.request.model_copy(update={"sampling": drawn, "seed": self._seed(), "tools": ()})
        result = await asyncio.wrap_future(self.engine.generate(request, self.text))
        assert isinstance(result, TextResult)
        self._count(result.prompt_tokens, result.cached_tokens, len(result.tokens))
        value = _CONTROL.sub(" ", result.text).rstrip("\\").strip()[: int(schema.get("maxLength", 10_000))]
        self.text += json.dumps(value, ensure_ascii=False)[1:]
        return value

    async def one_of(self, values: list[str], after: str) -> int:
        """Write one of ``values`` by its probability, each followed by ``after``; return its index."""
        choices = tuple(value + after for value in values)
        result = await asyncio.wrap_future(self.engine.continue_choice(self.request, self.text, choices))
        assert isinstance(result, ChoiceResult)
        self._count(result.prompt_tokens, result.cached_tokens, 0)
        probabilities, _ = normalised(result.log_probabilities)
        left = unit_draw(self._seed())
        chosen = max(range(len(values)), key=probabilities.__getitem__)
        if self.request.sampling.temperature > 0.0:
            for index, probability in enumerate(probabilities):
                left -= probability
                if left < 0.0:
                    chosen = index
                    break
        self.text += values[chosen]
        return chosen

    def _seed(self) -> int:
        self.parts += 1
        return derive_seed(self.request.seed, "part", self.parts)

    def _count(self, prompt: int, cached: int, completion: int) -> None:
        self.prompt_tokens += prompt
        self.cached_tokens += cached
        self.completion_tokens += completion


async def write_object(engine: Engine, request: GenerateRequest) -> Generation:
    """Return an answer that follows ``request.json_schema``.

    Objects of strings, integers in a range, numbers given as an enumeration, booleans, enumerations and arrays of
    strings; CallFailedError (invalid_request) for any other schema.
    """
    schema = request.json_schema or {}
    properties = schema.get("properties")
    if schema.get("type") != "object" or not isinstance(properties, dict) or not properties:
        raise CallFailedError("invalid_request", "A local model answers only with a flat JSON object.", attempts=0)
    writer = _Writer(engine, request, text="{")
    for number, (name, part) in enumerate(properties.items()):
        writer.text += f"{', ' if number else ''}{json.dumps(name)}: "
        writer.values[name] = await _value(
            writer, part if isinstance(part, dict) else {}, number == len(properties) - 1
        )
    usage = Usage(
        prompt_tokens=writer.prompt_tokens,
        cached_tokens=writer.cached_tokens,
        completion_tokens=writer.completion_tokens,
        requests=writer.parts,
    )
    return Generation(text=json.dumps(writer.values, ensure_ascii=False), usage=usage)


async def _value(writer: _Writer, schema: dict[str, Any], last: bool) -> Any:
    after = "}" if last else ","
    kind = schema.get("type")
    values = _enumerated(schema)
    if values is not None:
        return values[await writer.one_of([json.dumps(value, ensure_ascii=False) for value in values], after)]
    if kind == "string":
        writer.text += '"'
        return await writer.string(schema)
    items = schema.get("items")
    if kind == "array" and isinstance(items, dict) and items.get("type") == "string":
        return await _strings(writer, schema, items)
    raise CallFailedError(
        "invalid_request", f"A local model cannot be held to this part of a schema: {schema}.", attempts=0
    )


def _enumerated(schema: dict[str, Any]) -> list[Any] | None:
    """Return all values that a schema allows if they are few; None otherwise."""
    if isinstance(schema.get("enum"), list):
        return list(schema["enum"]) or None
    if schema.get("type") == "boolean":
        return [True, False]
    low, high = schema.get("minimum"), schema.get("maximum")
    if schema.get("type") == "integer" and isinstance(low, int) and isinstance(high, int) and high - low < _MOST_VALUES:
        return list(range(low, high + 1))
    return None


async def _strings(writer: _Writer, schema: dict[str, Any], items: dict[str, Any]) -> list[str]:
    most = min(int(schema.get("maxItems", _MOST_ITEMS)), _MOST_ITEMS)
    least = int(schema.get("minItems", 0))
    found: list[str] = []
    writer.text += "["
    while len(found) < most:
        separator = ', "' if found else '"'
        if len(found) < least:
            writer.text += separator
        elif await writer.one_of(["]", separator], "") == 0:
            return found
        found.append(await writer.string(items))
    writer.text += "]"
    return found
