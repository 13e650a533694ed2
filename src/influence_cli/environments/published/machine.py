"""From ``state_config`` to states."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from influence_cli.environments.published.files import mapping
from influence_cli.environments.published.histories import SPEAKERS
from influence_cli.environments.published.report import ImportReport, slug, unlike

_NAME = re.compile(r"[a-z0-9]+([-_][a-z0-9]+)*\Z")
Prompt = Callable[[Any], str]
"""From a text of the configuration to a template."""
_START = ("initial_state", "initial", "start")


@dataclass(frozen=True)
class Machine:
    """The states by name, the one that conversations start in, and whether a scale can choose between its labels."""

    start: str
    states: dict[str, dict[str, Any]]
    scaled: bool


def machine_of(master: Mapping[str, Any], prompt: Prompt, numeric: Sequence[str], report: ImportReport) -> Machine:
    """Return the state machine; ``numeric`` are the transition model's tokens where they are numbers."""
    config = {str(name): mapping(value) for name, value in mapping(master.get("state_config")).items()}
    if not config:
        report.leave("state_config", "missing: one state that the user may leave was made")
        config = {
            "initial_state": {"valid_transitions": {"yes": {"next_state": "terminal"}, "no": {}}},
            "terminal": {"terminal": True},
        }
    names = _names(config, report)
    states = {names[name]: _state(name, value, names, prompt, report) for name, value in config.items()}
    start = next((names[name] for name in _START if name in names), next(iter(states)))
    if states[start].pop("terminal", False):
        report.leave(f"terminal of {start}", "conversations start there")
    labels = [set(state["transitions"]) for state in states.values() if len(state.get("transitions", {})) > 1]
    scaled = bool(numeric and labels) and all({label.lower() for label in each} == {"yes", "no"} for each in labels)
    if scaled:
        for state in states.values():
            if len(state.get("transitions", {})) > 1:
                state["transitions"] = {label.lower(): target for label, target in state["transitions"].items()}
    elif numeric and labels and any(not each <= set(numeric) for each in labels):
        report.leave("numeric valid_tokens of transition_model_config", "only yes and no can be drawn from a scale")
    report.place("state_config", "states")
    reached = _reached(states, start)
    for name in states.keys() - reached:
        report.leave(f"the state {name}", "nothing leads to it")
    return Machine(start, {name: state for name, state in states.items() if name in reached}, scaled)


def _names(config: Iterable[str], report: ImportReport) -> dict[str, str]:
    names: dict[str, str] = {}
    for name in config:
        fits = _NAME.match(name) and len(name) <= 80
        names[name] = unlike(name if fits else slug(name, "state"), names.values())
        if names[name] != name:
            report.place(f"the state {name}", f"state {names[name]}")
    return names


def _state(
    name: str, config: Mapping[str, Any], names: Mapping[str, str], prompt: Prompt, report: ImportReport
) -> dict[str, Any]:
    state: dict[str, Any] = {}
    if config.get("terminal"):
        state["terminal"] = True
    else:
        transitions = dict(_edges(name, config, names, report))
        if transitions:
            state["transitions"] = transitions
    messages = list(_history(config.get("history"), prompt))
    if messages:
        state["messages"] = messages
        report.place("history of state_config", "messages added when the state is entered")
    return state


def _edges(
    name: str, config: Mapping[str, Any], names: Mapping[str, str], report: ImportReport
) -> Iterable[tuple[str, str]]:
    default = config.get("default_transition")
    edges = mapping(config.get("valid_transitions"))
    for label, edge in edges.items():
        target = edge.get("next_state", name) if isinstance(edge, dict) else edge if edge is not None else name
        text = " ".join(label.split())[:200]
        if text and str(target) in names:
            yield text, names[str(target)]
        else:
            report.leave(f"the transition {label[:40]!r} of {name}", f"there is no state {str(target)[:40]!r}")
    default = default.get("next_state") if isinstance(default, dict) else default
    if default is None:
        return
    if not edges and str(default) in names:
        yield "default", names[str(default)]
        report.place("default_transition of a state without others", "its only transition, taken without asking")
    elif str(default) in names and names[str(default)] == names[name]:
        report.place(f"default_transition of {name}", "stays, as a state does here after an unusable answer")
    else:
        report.leave(f"default_transition of {name}", "after an unusable answer a conversation stays in its state here")


def _history(value: Any, prompt: Prompt) -> Iterable[dict[str, Any]]:
    for item in value if isinstance(value, list) else [value] if value else []:
        message = {"content": item} if isinstance(item, str) else mapping(item)
        text = prompt(message.get("content"))
        if text.strip():
            yield {"speaker": SPEAKERS.get(str(message.get("role")).lower(), "system"), "text": text}


def _reached(states: Mapping[str, Mapping[str, Any]], start: str) -> set[str]:
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting.extend(states[name].get("transitions", {}).values())
    return seen
