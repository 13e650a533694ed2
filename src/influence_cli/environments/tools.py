"""What comes of an agent's tool call: a scripted result, drawn by the conversation's own seed.

Invariant: every call gets exactly one answer, a mistaken call one that says what was wrong with it, as a real service
would; what really happened (``outcome``) is recorded beside what the agent is told.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import orjson

from influence_cli.environments.templates import compile_template
from influence_cli.schemas.environment import EnvironmentSpec, Scenario, Tool, ToolOutcome
from influence_cli.schemas.messages import ToolCall
from influence_cli.schemas.records import Outcome

MAX_STEPS = 4
"""Times that the agent may call tools before it has to speak."""


@dataclass(frozen=True)
class ToolResult:
    """What the agent is told, and what really happened."""

    text: str
    outcome: Outcome


def offered_tools(spec: EnvironmentSpec, scenario: Scenario) -> tuple[Tool, ...]:
    """Return the tools of an environment that the agent may call in ``scenario``."""
    return tuple(tool for tool in spec.tools if scenario.tools is None or tool.name in scenario.tools)


def answer_call(
    call: ToolCall,
    tools: Sequence[Tool],
    own: Mapping[str, Sequence[ToolOutcome]],
    variables: Mapping[str, Any],
    point: float,
) -> ToolResult:
    """Return the result of ``call``; ``own`` are the scenario's outcomes by tool, ``point`` in [0, 1) draws among equals.

    Outcomes whose ``when`` names arguments of this call come before those for all others, and the scenario's before the
    environment's.
    """
    tool = next((each for each in tools if each.name == call.name), None)
    if tool is None:
        known = ", ".join(each.name for each in tools)
        return ToolResult(f"error: there is no tool {call.name!r}; available: {known}", "failure")
    problem = _objection(tool, call.arguments)
    if problem is not None:
        return ToolResult(f"error: invalid arguments: {problem}", "failure")
    fitting = _fitting([*own.get(tool.name, ())], call) or _fitting(tool.outcomes, call)
    if not fitting:
        return ToolResult("error: not found", "failure")
    outcome = _drawn(fitting, point)
    text = compile_template(outcome.result).render({**variables, "arguments": call.arguments}).strip()
    return ToolResult(text, outcome.kind)


def filled_call(call: ToolCall, variables: Mapping[str, Any]) -> ToolCall:
    """Return a call that was written beforehand, the templates in its arguments rendered."""
    if next(argument_texts(call), None) is None:
        return call
    filled: dict[str, Any] = {name: _filled(value, variables) for name, value in call.arguments.items()}
    return call.model_copy(update={"arguments": filled})


def argument_texts(call: ToolCall) -> Iterator[str]:
    """Yield every text in a call's arguments that may be a template."""
    waiting: list[Any] = list(call.arguments.values())
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            if "{" in value:
                yield value
        elif isinstance(value, dict | list):
            waiting.extend(value.values() if isinstance(value, dict) else value)


def _filled(value: Any, variables: Mapping[str, Any]) -> Any:
    if isinstance(value, str):
        return compile_template(value).render(variables)
    if isinstance(value, dict):
        return {name: _filled(each, variables) for name, each in value.items()}
    return [_filled(each, variables) for each in value] if isinstance(value, list) else value


def _fitting(outcomes: Sequence[ToolOutcome], call: ToolCall) -> list[ToolOutcome]:
    named = [each for each in outcomes if each.when and _matches(each.when, call.arguments)]
    return named or [each for each in outcomes if not each.when]


def _matches(when: Mapping[str, Any], arguments: Mapping[str, Any]) -> bool:
    return all(name in arguments and _same(value, arguments[name]) for name, value in when.items())


def _same(expected: Any, given: Any) -> bool:
    if isinstance(expected, str) and isinstance(given, str):
        return expected.strip().casefold() == given.strip().casefold()
    return bool(expected == given)


def _drawn(outcomes: Sequence[ToolOutcome], point: float) -> ToolOutcome:
    left = point * sum(each.weight for each in outcomes)
    for each in outcomes:
        left -= each.weight
        if left < 0.0:
            return each
    return outcomes[-1]


def _objection(tool: Tool, arguments: Mapping[str, Any]) -> str | None:
    """Return what is wrong with the arguments, by the tool's JSON schema."""
    found = next(iter(_validator(orjson.dumps(tool.parameters)).iter_errors(dict(arguments))), None)
    return None if found is None else str(found.message)[:300]


@lru_cache(maxsize=256)
def _validator(schema: bytes) -> Any:
    from jsonschema import Draft202012Validator

    return Draft202012Validator(orjson.loads(schema))


_UNBOUNDED = ("$ref", "$dynamicRef", "$recursiveRef", "pattern", "patternProperties")
"""Keys of JSON schemas that may lead elsewhere, in circles, or into a match that never ends."""


def schema_problem(tool: Tool) -> str | None:
    """Return what is wrong with a tool's JSON schema of its arguments; None if it is sound."""
    from jsonschema import Draft202012Validator, SchemaError

    found = _unbounded_key(tool.parameters)
    if found is not None:
        return f"{found!r} is not allowed: checking a call takes bounded time and reads nothing else"
    try:
        Draft202012Validator.check_schema(tool.parameters)
    except SchemaError as error:
        return str(error.message)[:300]
    if tool.parameters.get("type") != "object":
        return "the schema of a tool's arguments has `type: object`"
    return None


def _unbounded_key(schema: Mapping[str, Any]) -> str | None:
    """Return a key of ``_UNBOUNDED`` that a schema or a schema in it uses; a parameter may be called like one."""
    waiting: list[tuple[Any, bool]] = [(schema, True)]
    while waiting:
        part, is_schema = waiting.pop()
        if isinstance(part, dict):
            for key, value in part.items():
                if is_schema and key in _UNBOUNDED:
                    return str(key)
                if not is_schema or key not in ("enum", "const", "default", "examples"):
                    named = is_schema and key in ("properties", "$defs", "definitions", "dependentSchemas")
                    waiting.append((value, not named))
        elif isinstance(part, list):
            waiting.extend((each, True) for each in part)
    return None
