"""The JSON files of the published project, as far as they are what they should be."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from influence_cli.environments.format_strings import variable_name
from influence_cli.environments.published.reading import read_json
from influence_cli.environments.published.report import ImportReport, slug, unlike
from influence_cli.errors import InfluenceError

MASTERS = ("_master_config.yaml", "_master_config.yml")
MASTER = MASTERS[0]
PREFIXES = ("vuln", "weak", "gameable", "normal", "uncertain", "resilient")
"""Prefixes of file names that say the kind of user."""
_TOOL_KEYS = ("function", "function_def")
_FUNCTION = re.compile(r"\s*([A-Za-z_]\w{0,63})\s*(?:\(.*\))?\s*\Z", re.DOTALL)
_LONGEST = 40_000


@dataclass(frozen=True)
class EnvironmentFile:
    """One JSON file: its scenario, its population, its strings and its histories."""

    path: Path
    scenario: str
    population: str | None
    strings: dict[str, str]
    drawn: dict[str, list[str]]
    histories: dict[str, list[Any]]
    tools: dict[str, Any] = field(default_factory=dict)

    @property
    def tool(self) -> str:
        """The name of the tool that the file's calls are of, where they do not say it: the function's, or the scenario's."""
        function = self.tools.get("function")
        named = _FUNCTION.match(function) if isinstance(function, str) else None
        return named[1] if named else variable_name(self.scenario)


def environment_files(
    folder: Path, master: Mapping[str, Any], prefixes: Collection[str], report: ImportReport
) -> list[EnvironmentFile]:
    """Return what every JSON file of ``folder`` holds; InfluenceError if none is an environment.

    A file that is none is left out, and told.
    """
    found: list[EnvironmentFile] = []
    refused: list[InfluenceError] = []
    root = folder.resolve()
    for path in sorted(folder.rglob("*.json")):
        if path.name.startswith(("_", ".")) or not path.is_file():
            continue
        if not path.resolve().is_relative_to(root):
            report.leave(f"the file {path.name}", "it leads out of the folder")
            continue
        try:
            found.append(_read(path, folder, master, prefixes, report))
        except InfluenceError as error:
            refused.append(error)
            report.leave(f"the file {path.relative_to(folder)}", f"left out: {error}")
    if not found:
        if refused:
            raise refused[0]
        raise InfluenceError(f"{folder} has no environment: no JSON file stands beside {MASTER}.")
    return list(_apart(sorted(found, key=lambda each: each.population is None)))


def _read(
    path: Path, folder: Path, master: Mapping[str, Any], prefixes: Collection[str], report: ImportReport
) -> EnvironmentFile:
    data = read_json(path, report)
    if not isinstance(data, dict):
        raise InfluenceError(f"{path} holds no histories.", hint="Each file is an object with `histories` by id.")
    histories = _histories(data.get("histories"))
    if not histories:
        raise InfluenceError(f"{path} holds no histories.", hint="Each file is an object with `histories` by id.")
    prefix, _, rest = path.stem.partition("_")
    population = slug(prefix) if rest and prefix.lower() in prefixes else None
    above = "-".join(path.relative_to(folder).parent.parts)
    scenario = slug(f"{above}-{rest if population else path.stem}", "scenario")
    drawn = _drawn({**mapping(master.get("possible_env_vars")), **mapping(data.get("possible_env_vars"))}, report)
    strings = _strings(data, report)
    for name in drawn.keys() & strings.keys():
        report.leave(f"{name} of possible_env_vars", f"{path.name} gives it a text of its own")
        del drawn[name]
    tools = {key: data[key] for key in _TOOL_KEYS if data.get(key)}
    return EnvironmentFile(path, scenario, population, strings, drawn, histories, tools)


def _apart(files: Iterable[EnvironmentFile]) -> Iterator[EnvironmentFile]:
    """Yield the files, each with a scenario of its own but for those that differ in their population."""
    taken: dict[str, set[str | None]] = {}
    for each in files:
        name = each.scenario
        if each.population in taken.get(name, ()) or (name in taken and None in {each.population, *taken[name]}):
            name = unlike(name, taken)
        taken.setdefault(name, set()).add(each.population)
        yield (
            EnvironmentFile(each.path, name, each.population, each.strings, each.drawn, each.histories, each.tools)
            if name != each.scenario
            else each
        )


def _histories(value: Any) -> dict[str, list[Any]]:
    """Return histories by id; a list of them is numbered."""
    if isinstance(value, list):
        value = dict(enumerate(value))
    if not isinstance(value, dict):
        return {}
    return {
        str(key): each if isinstance(each, list) else mapping(each).get("messages") or [each]
        for key, each in value.items()
    }


def _strings(data: Mapping[str, Any], report: ImportReport) -> dict[str, str]:
    """Return what the file's templates can name: its texts and numbers."""
    strings: dict[str, str] = {}
    for key, value in data.items():
        if key in ("histories", "possible_env_vars") or value is None:
            continue
        if isinstance(value, str | int | float):
            text = str(value)
            if len(text) > _LONGEST:
                report.leave(f"{key} of the JSON files", f"cut at {_LONGEST:,} characters")
            strings[variable_name(key)] = text[:_LONGEST]
        elif key not in _TOOL_KEYS:
            report.leave(f"{key} of the JSON files", "neither text nor part of a conversation")
    return strings


def _drawn(values: Mapping[str, Any], report: ImportReport) -> dict[str, list[str]]:
    drawn: dict[str, list[str]] = {}
    for key, value in values.items():
        several = [value] if isinstance(value, str | int | float) else value
        if isinstance(several, list) and several and all(isinstance(v, str | int | float) for v in several):
            drawn[variable_name(key)] = [str(each) for each in several]
        else:
            report.leave(f"{key} of possible_env_vars", "no list of texts")
    return drawn


def mapping(value: Any) -> Mapping[str, Any]:
    """Return ``value`` if it is a mapping, else an empty one."""
    return value if isinstance(value, dict) else {}
