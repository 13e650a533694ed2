"""What comes of an agent's tool call: a scripted result, drawn by the conversation's own seed.

Invariant: every call gets exactly one answer, a mistaken call one that says what was wrong with it, as a real service
would; what really happened (``outcome``) is recorded beside what the agent is told.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import orjson

from influence_cli.environments.templates import compile_template
from influence_cli.schemas.environment import Tool, ToolOutcome
from influence_cli.schemas.messages import ToolCall
from influence_cli.schemas.records import Outcome

MAX_STEPS = 4
"""Times that the agent may call tools before it has to speak."""


@dataclass(frozen=True)
class ToolResult:
    """What the agent is told, and what really happened."""

    text: str
    outcome: Outcome


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


def schema_problem(tool: Tool) -> str | None:
    """Return what is wrong with a tool's JSON schema of its arguments; None if it is sound."""
    from jsonschema import Draft202012Validator, SchemaError

    try:
        Draft202012Validator.check_schema(tool.parameters)
    except SchemaError as error:
        return str(error.message)[:300]
    if tool.parameters.get("type") != "object":
        return "the schema of a tool's arguments has `type: object`"
    return None
