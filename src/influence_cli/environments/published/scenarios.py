"""From the JSON files to scenarios: files that differ in their population share one."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from influence_cli.environments.format_strings import as_template
from influence_cli.environments.published.files import EnvironmentFile
from influence_cli.environments.published.report import ImportReport, identifier, slug
from influence_cli.errors import InfluenceError

SPEAKERS = {"environment": "user", "agent": "agent", "environment_system": "system", "user": "user"}


def scenarios_of(
    files: Sequence[EnvironmentFile], populations: Sequence[str], report: ImportReport
) -> dict[str, dict[str, Any]]:
    """Return the content of each scenario's file, by name."""
    grouped: dict[str, list[EnvironmentFile]] = {}
    for each in files:
        grouped.setdefault(each.scenario, []).append(each)
    report.place("each JSON file", "a scenario; files that differ in the population's prefix share one")
    report.place("string keys of the JSON files", "variables of the scenario, or of its populations where they differ")
    return {name: _scenario(name, group, populations, report) for name, group in grouped.items()}


def _scenario(
    name: str, group: Sequence[EnvironmentFile], populations: Sequence[str], report: ImportReport
) -> dict[str, Any]:
    keys = {key for each in group for key in each.strings}
    alike = {key for key in keys if len({each.strings.get(key) for each in group}) == 1}
    scenario: dict[str, Any] = {"name": name, "title": name.replace("-", " ").capitalize()}
    description = group[0].strings.get("task_desc") or group[0].strings.get("env_name")
    if description:
        scenario["description"] = description
    known = {identifier(key) for key in keys} | {identifier(key) for each in group for key in each.drawn}
    shared = {identifier(key): group[0].strings[key] for key in sorted(alike)}
    if shared:
        scenario["variables"] = {key: _filled(value, shared) for key, value in shared.items()}
    variants = {identifier(key): values for each in group for key, values in each.drawn.items()}
    if variants:
        scenario["variants"] = variants
        report.place("possible_env_vars", "variants: each conversation draws one value")
    if populations and keys - alike:
        scenario["populations"] = {p: {"variables": _own(p, group, keys - alike, shared)} for p in populations}
    scenario["initial_states"] = [
        state for each in group for state in _states(each, known, report, several=len(group) > 1)
    ]
    return scenario


def _own(
    population: str, group: Sequence[EnvironmentFile], keys: Iterable[str], shared: Mapping[str, str]
) -> dict[str, str]:
    """Return what a population's texts are; empty ones where the scenario has no file for it."""
    mine = next((each.strings for each in group if each.population == population), {})
    own = {identifier(key): mine.get(key, "") for key in sorted(keys)}
    return {key: _filled(value, {**shared, **own}) for key, value in own.items()}


def _filled(text: str, values: Mapping[str, str]) -> str:
    """Return a value with the fields that name other values filled in, as the format strings there were."""
    for _ in range(3):
        changed = re.sub(r"(?<!\{)\{(\w+)\}(?!\})", lambda m: values.get(identifier(m[1]), m[0]), text)
        if changed == text or len(changed) > 40_000:
            break
        text = changed
    return text


def _states(file: EnvironmentFile, known: set[str], report: ImportReport, *, several: bool) -> Iterable[dict[str, Any]]:
    report.place("histories", "initial states")
    for key, history in file.histories.items():
        stem = slug(str(key)) or "state"
        state: dict[str, Any] = {"id": f"{file.population}-{stem}" if several and file.population else stem}
        if file.population:
            state["population"] = file.population
        state["messages"] = list(_messages(file, key, history, known, report))
        yield state


def _messages(
    file: EnvironmentFile, key: str, history: Sequence[Mapping[str, Any]], known: set[str], report: ImportReport
) -> Iterable[dict[str, Any]]:
    calls = 0
    for message in history:
        role, text = str(message.get("role")), message.get("content", "")
        text = text if isinstance(text, str) else json.dumps(text)
        if role == "tool_call":
            calls += 1
            name, arguments = _call(text, file)
            call = {"id": f"call-{calls}", "name": name, "arguments": arguments}
            yield {"speaker": "agent", "text": "", "tool_calls": [call]}
            report.place("tool_call messages", "tool calls of the agent")
        elif role == "tool_response":
            outcome = "failure" if "error" in text.lower() or "fail" in text.lower() else "success"
            calls = max(calls, 1)
            message_text = as_template(text, known)
            yield {"speaker": "tool", "text": message_text, "tool_call_id": f"call-{calls}", "outcome": outcome}
            report.place("tool_response messages", "results of tools; what really happened is guessed from their text")
        elif role in SPEAKERS:
            yield {"speaker": SPEAKERS[role], "text": as_template(text, known)}
        else:
            raise InfluenceError(f"{file.path}: the history {key!r} has a message of the unknown role {role!r}.")


def _call(text: str, file: EnvironmentFile) -> tuple[str, dict[str, Any]]:
    """Return name and arguments of a call written as JSON; the whole text as one argument where it is none."""
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if isinstance(value, dict):
        arguments = value.get("arguments", value.get("parameters", {}))
        return str(value.get("name") or tool_name(file)), arguments if isinstance(arguments, dict) else {
            "value": arguments
        }
    return tool_name(file), {"call": text}


def tool_name(file: EnvironmentFile) -> str:
    """Return the name of the tool that a file's calls are of."""
    return (
        identifier(str(file.tools.get("function", "tool"))) if isinstance(file.tools.get("function"), str) else "tool"
    )


def variables_of(scenarios: Mapping[str, Mapping[str, Any]]) -> set[str]:
    """Return the variables that every scenario has, from whatever source."""
    sets = []
    for scenario in scenarios.values():
        own = set(scenario.get("variables", {})) | set(scenario.get("variants", {}))
        for population in scenario.get("populations", {}).values():
            own |= set(population["variables"])
        sets.append(own)
    return set.intersection(*sets) if sets else set()
