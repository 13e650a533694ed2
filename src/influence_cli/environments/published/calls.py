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
    name = value.get("name") or value.get("function_name") or (inner if isinstance(inner, str) else None)
    keys = ("arguments", "parameters", "args", "kwargs", "input")
    key = next((key for key in keys if key in value), None)
    if key is None:
        own = {k: v for k, v in value.items() if k not in ("name", "function", "function_name", "id", "type")}
        return str(name or file.tool), own
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
            found.setdefault(name, _tool(name, definition, report))
            report.place("function, function_def", "tools; a new call fails, as the histories' calls do")
    for name, arguments in called.items():
        if name not in found:
            properties: dict[str, Any] = {key: {} for key in arguments}
            found[name] = _tool(name, {"parameters": {"type": "object", "properties": properties}}, report)
            report.place("calls of tools that no file defines", "tools, their arguments as in the first call")
    return list(found.values())


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
            signature = _CALL.match(str(each).strip().removeprefix("def ").partition("\n")[0].rstrip(": "))
            yield {"name": signature[1] if signature else None, "description": str(each)}


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
