"""From the JSON files to scenarios: files that differ in their population share one."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from influence_cli.documents import MAX_BYTES
from influence_cli.environments.format_strings import as_value
from influence_cli.environments.published.calls import tools_in
from influence_cli.environments.published.files import EnvironmentFile
from influence_cli.environments.published.histories import Histories
from influence_cli.environments.published.report import ImportReport, unlike

_MOST_BYTES = MAX_BYTES // 2
"""Of the messages in one scenario's file."""


def scenarios_of(
    files: Sequence[EnvironmentFile],
    populations: Sequence[str],
    called: dict[str, Mapping[str, Any]],
    report: ImportReport,
) -> dict[str, dict[str, Any]]:
    """Return the content of each scenario's file, by name; ``called`` collects an example of each tool's arguments."""
    grouped: dict[str, list[EnvironmentFile]] = {}
    for each in files:
        grouped.setdefault(each.scenario, []).append(each)
    report.place("each JSON file", "a scenario; files that differ in the population's prefix share one")
    report.place("string keys of the JSON files", "variables of the scenario, or of its populations where they differ")
    made = {name: _scenario(name, group, populations, called, report) for name, group in grouped.items()}
    parts: dict[str, dict[str, Any]] = {}
    for name, scenario in made.items():
        several = list(_of_readable_size(scenario["initial_states"]))
        for states in several:
            own = unlike(name, made.keys() | parts.keys() if states is not several[0] else ())
            parts[own] = {**scenario, "name": own, "initial_states": states}
            if len(several) > 1:
                report.place(f"the files of {name}, which are large", f"scenario {own}")
    return parts


def _of_readable_size(states: Sequence[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
    """Yield the states in lists, each of which makes a file that can be read."""
    part: list[Mapping[str, Any]] = []
    size = 0
    for state in states:
        own = sum(len(message["text"].encode()) + 200 for message in state["messages"])
        if part and size + own > _MOST_BYTES:
            yield part
            part, size = [], 0
        part.append(state)
        size += own
    if part:
        yield part


def _scenario(
    name: str,
    group: Sequence[EnvironmentFile],
    populations: Sequence[str],
    called: dict[str, Mapping[str, Any]],
    report: ImportReport,
) -> dict[str, Any]:
    keys = {key for each in group for key in each.strings}
    alike = {key for key in keys if len({each.strings.get(key) for each in group}) == 1}
    if not any(each.population for each in group):
        alike = keys
    variants = {key: values for each in group for key, values in each.drawn.items() if key not in keys}
    first = group[0].strings
    scenario: dict[str, Any] = {"name": name, "title": name.replace("-", " ").capitalize()}
    description = first.get("task_desc") or first.get("env_name")
    if description:
        scenario["description"] = description[:2000]
    shared = {key: first[key] for key in sorted(alike)}
    if shared:
        scenario["variables"] = {key: as_value(value, shared, variants.keys()) for key, value in shared.items()}
    if variants:
        scenario["variants"] = variants
        report.place("possible_env_vars", "variants: each conversation draws one value")
    if populations and keys - alike:
        scenario["populations"] = {
            each: {"variables": _own(each, group, keys - alike, shared, variants)} for each in populations
        }
    histories = Histories(keys | variants.keys(), called, report)
    several = len({each.population for each in group}) > 1
    states = [state for each in group for state in histories.states(each, prefixed=several)]
    return {**scenario, "tools": tools_in(group, states), "initial_states": states}


def _own(
    population: str,
    group: Sequence[EnvironmentFile],
    keys: Collection[str],
    shared: Mapping[str, str],
    variants: Mapping[str, Any],
) -> dict[str, str]:
    """Return what a population's texts are; empty ones where the scenario has no file for it."""
    mine = next((each.strings for each in group if each.population == population), {})
    own = {key: mine.get(key, "") for key in sorted(keys)}
    return {key: as_value(value, {**shared, **own}, variants.keys()) for key, value in own.items()}


def variables_of(scenario: Mapping[str, Any]) -> set[str]:
    """Return the variables that a scenario has, from whatever source."""
    own = set(scenario.get("variables", {})) | set(scenario.get("variants", {}))
    for population in scenario.get("populations", {}).values():
        own |= set(population["variables"])
    return own
