"""Tool calls and definitions of tools, in the several manners in which files write them."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from influence_cli.environments.format_strings import variable_name
from influence_cli.environments.published.files import EnvironmentFile, mapping
from influence_cli.environments.published.report import ImportReport
from influence_cli.environments.tools import schema_problem
from influence_cli.schemas.environment import Tool

_CALL = re.compile(r"\s*([A-Za-z_][\w.]*)\s*\((.*)\)\s*\Z", re.DOTALL)
_FIELD = re.compile(r'"(\w+)"\s*:\s*"(\w+)"\s*,?[ \t]*(?://[ \t]*([^\n]*))?')
_ARGUMENTS = ("arguments", "parameters", "args", "kwargs", "input")
_TYPES = {
    "string": "string", "str": "string", "text": "string", "date": "string",
    "number": "number", "float": "number", "integer": "integer", "int": "integer",
    "boolean": "boolean", "bool": "boolean", "array": "array", "list": "array", "object": "object",
}  # fmt: skip
_LONGEST = 20_000
_FAILS = ("error", "fail", "unable", "cannot", "not found", "denied", "unavailable", "invalid")


def read_call(content: Any, file: EnvironmentFile) -> tuple[str, dict[str, Any]]:
    """Return name and arguments of a call; the whole text as one argument where it is in no known manner."""
    value = _value(content)
    if isinstance(value, list) and value:
        value = value[0]
    if not isinstance(value, dict):
        return _written_as_python(str(content)) or (file.tool, {"call": str(content)})
    inner = value.get("function")
    if isinstance(inner, dict):
        value = inner
    key = next((key for key in _ARGUMENTS if key in value), None)
    if key is None:
        return file.tool, {str(name): each for name, each in value.items()}
    name = value.get("name") or value.get("function_name") or (inner if isinstance(inner, str) else None)
    arguments = _value(value[key])
    return str(name or file.tool), arguments if isinstance(arguments, dict) else {"value": arguments}


def _written_as_python(text: str) -> tuple[str, dict[str, Any]] | None:
    """Return the call that ``book(place="Oslo")`` is; None if the text is none."""
    match = _CALL.match(text)
    if match is None or len(text) > _LONGEST:
        return None
    try:
        call = ast.parse(text.strip(), mode="eval").body
        if not isinstance(call, ast.Call):
            return None
        named = {each.arg: ast.literal_eval(each.value) for each in call.keywords if each.arg}
        numbered = {f"value_{n}": ast.literal_eval(each) for n, each in enumerate(call.args, 1)}
        json.dumps(arguments := {**numbered, **named})
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError):
        return match[1], {"call": match[2]}
    return match[1], arguments


def _value(content: Any) -> Any:
    """Return what a text says as JSON or as a Python literal, its braces perhaps doubled; else the text."""
    if not isinstance(content, str) or len(content) > _LONGEST:
        return content
    for text in (content, content.replace("{{", "{").replace("}}", "}")):
        for read in (json.loads, ast.literal_eval):
            try:
                value = read(text)
                json.dumps(value)
            except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError):
                continue
            if isinstance(value, dict | list):
                return value
    return content


def outcome_of(text: str) -> str:
    """Return what a result seems to say of what happened."""
    return "failure" if any(word in text.lower() for word in _FAILS) else "success"


# -- definitions ------------------------------------------------------------------------------------------------------


def tools_of(
    files: Sequence[EnvironmentFile], called: Mapping[str, Mapping[str, Any]], report: ImportReport
) -> list[dict[str, Any]]:
    """Return the tools that the files define, and those that histories call without a definition.

    ``called`` has an example of the arguments of each call, by name.
    """
    found: dict[str, dict[str, Any]] = {}
    for file in files:
        for definition in _definitions(file):
            name = str(definition.get("name") or file.tool)
            tool = _tool(name, definition, report)
            found[name] = _both(found[name], tool, report) if name in found else tool
            report.place("function, function_def", "tools; a new call fails, as the histories' calls do")
    for name, arguments in called.items():
        if name not in found:
            properties: dict[str, Any] = {key: {} for key in arguments}
            found[name] = _tool(name, {"parameters": {"type": "object", "properties": properties}}, report)
            report.place("calls of tools that no file defines", "tools, their arguments as in the first call")
    return list(found.values())


def tools_in(files: Sequence[EnvironmentFile], states: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the names of the tools that files of one scenario define, and that its histories (``states``) call."""
    defined = [str(each.get("name") or file.tool) for file in files for each in _definitions(file)]
    called = [
        call["name"] for state in states for message in state["messages"] for call in message.get("tool_calls", ())
    ]
    return list(dict.fromkeys([*defined, *called]))


def offer_own_tools(
    scenarios: Mapping[str, dict[str, Any]], tools: Sequence[Mapping[str, Any]], report: ImportReport
) -> None:
    """Leave each scenario's tools where it has not all of ``tools``, so that it offers no others."""
    everything = {tool["name"] for tool in tools}
    for scenario in scenarios.values():
        if set(scenario["tools"]) == everything:
            del scenario["tools"]
        else:
            report.place("which file a tool is of", "tools of the scenario: no other is offered there")


def _both(first: dict[str, Any], second: dict[str, Any], report: ImportReport) -> dict[str, Any]:
    """Return a tool that takes the calls of both definitions of one name."""
    a, b = first["parameters"], second["parameters"]
    if a == b:
        return first
    report.leave(f"a second definition of the tool {first['name']}", "its parameters are taken beside the first one's")
    required = [name for name in a.get("required", ()) if name in b.get("required", ())]
    joined = {"type": "object", "properties": {**mapping(b.get("properties")), **mapping(a.get("properties"))}}
    return {**first, "parameters": {**joined, "required": required} if required else joined}


def _definitions(file: EnvironmentFile) -> Iterable[Mapping[str, Any]]:
    definition = file.tools.get("function_def") or file.tools.get("function")
    if not definition:
        return
    value = _value(definition)
    for each in value if isinstance(value, list) else [value]:
        if isinstance(each, dict):
            inner = each.get("function")
            yield inner if isinstance(inner, dict) else each
        else:
            fields = _sketched(str(each))
            if fields:
                yield {"name": None, "description": str(each), "parameters": fields}
                continue
            signature = _CALL.match(str(each).strip().removeprefix("def ").partition("\n")[0].rstrip(": "))
            yield {"name": signature[1] if signature else None, "description": str(each)}


def _sketched(text: str) -> dict[str, Any] | None:
    """Return the schema that a sketch such as ``{"when": "date", // day and month`` stands for; None if it is none."""
    begin, end = text.find("{"), text.find("}")
    fields = _FIELD.findall(text[begin:end]) if 0 <= begin < end else []
    if not fields or any(kind.lower() not in _TYPES for _, kind, _ in fields):
        return None
    properties = {
        name: {"type": _TYPES[kind.lower()], **({"description": told.strip()} if told.strip() else {})}
        for name, kind, told in fields
    }
    return {"type": "object", "properties": properties, "required": list(properties)}


def _tool(name: str, definition: Mapping[str, Any], report: ImportReport) -> dict[str, Any]:
    parameters = mapping(definition.get("parameters") or definition.get("input_schema"))
    schema = {"properties": {}, **parameters, "type": "object"} if parameters else {"type": "object", "properties": {}}
    tool = {
        "name": name,
        "description": str(definition.get("description") or name.replace("_", " "))[:2000],
        "parameters": schema,
        "outcomes": [{"result": '{"status": "error"}', "kind": "failure"}],
    }
    if schema_problem(Tool.model_validate(tool)) is not None:
        report.leave(f"the parameters of {variable_name(name)}", "no JSON schema; any arguments are taken")
        tool["parameters"] = {"type": "object", "properties": {}}
    return tool
