"""The JSON files of the published project, as far as they are what they should be."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from influence_cli.environments.published.report import ImportReport, slug
from influence_cli.errors import InfluenceError

MASTER = "_master_config.yaml"
MAX_BYTES = 256 * 1024 * 1024
POPULATIONS = ("vuln", "weak", "gameable", "normal", "uncertain", "resilient")
"""Prefixes of file names that say the kind of user."""


@dataclass(frozen=True)
class EnvironmentFile:
    """One JSON file: its scenario, its population, its strings and its histories."""

    path: Path
    scenario: str
    population: str | None
    strings: dict[str, str]
    drawn: dict[str, list[str]]
    histories: dict[str, list[dict[str, Any]]]
    tools: dict[str, Any]


def read_file(path: Path, master: Mapping[str, Any], report: ImportReport) -> EnvironmentFile:
    """Return one file's content; InfluenceError if it is no environment."""
    if path.stat().st_size > MAX_BYTES:
        raise InfluenceError(f"{path} is larger than {MAX_BYTES // 2**20} MiB.")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InfluenceError(f"{path} is no JSON: {str(error)[:120]}.") from None
    if not isinstance(data, dict) or not isinstance(data.get("histories"), dict) or not data["histories"]:
        raise InfluenceError(f"{path} holds no histories.", hint="Each file is an object with `histories` by id.")
    prefix, _, rest = path.stem.partition("_")
    population = prefix if rest and prefix in POPULATIONS else None
    scenario = slug(rest if population else path.stem)
    strings = {key: value for key, value in data.items() if isinstance(value, str)}
    drawn = _drawn({**mapping(master.get("possible_env_vars")), **mapping(data.get("possible_env_vars"))})
    tools = {key: data[key] for key in ("function", "function_def") if data.get(key)}
    placed = {"histories", "possible_env_vars", *strings, *tools}
    for key in data:
        if key not in placed:
            report.leave(f"{key} of the JSON files", "neither text nor part of a conversation")
    histories = {str(key): _history(path, key, value) for key, value in data["histories"].items()}
    return EnvironmentFile(path, scenario, population, strings, drawn, histories, tools)


def _history(path: Path, key: str, value: Any) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not value or not all(isinstance(m, dict) for m in value):
        raise InfluenceError(f"{path}: the history {key!r} is no list of messages.")
    return value


def _drawn(values: Mapping[str, Any]) -> dict[str, list[str]]:
    return {key: [str(item) for item in value] for key, value in values.items() if isinstance(value, list) and value}


def mapping(value: Any) -> Mapping[str, Any]:
    """Return ``value`` if it is a mapping, else an empty one."""
    return value if isinstance(value, dict) else {}
