"""Asking a model for further initial states, and deciding which of its answers may stay.

Concept: the form of an answer follows from the initial states that exist (the same profile, one opening message); what a
model writes is data, checked like any author's. Invariant: an accepted state has a complete profile, a name and an
identifier of its own, and an opening unlike every other of its environment.
"""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from influence_cli.documents import read_document, validate_document, write_document
from influence_cli.environments.checking import MORE_SUFFIX
from influence_cli.environments.environment import Environment
from influence_cli.environments.originality import LIMIT, Originals
from influence_cli.errors import InfluenceError
from influence_cli.sanitize import visible
from influence_cli.schemas.environment import InitialState, MoreStates, Scenario, ScenarioMessage
from influence_cli.schemas.messages import ChatMessage
from influence_cli.seeding import derive_seed
from influence_cli.whole_files import write_whole

_SHOWN = 4
_NAMES_SHOWN = 60
_LEAST_WORDS = 6
_SLUG = re.compile(r"[^a-z0-9]+")
MESSAGE = "message"
"""The field of an answer that holds the opening."""


@dataclass
class Collection:
    """The further initial states of one scenario: those written so far, and how."""

    path: Path
    scenario: str
    provenance: dict[str, Any] = field(default_factory=dict)
    states: list[InitialState] = field(default_factory=list)

    @property
    def attempts(self) -> int:
        """How often a model was asked."""
        return int(self.provenance.get("attempts", 0))

    def save(self) -> None:
        """Write the file anew, whole or not at all."""
        content = {
            "scenario": self.scenario,
            "provenance": self.provenance,
            "initial_states": [state.model_dump(mode="json", exclude_defaults=True) for state in self.states],
        }
        text = write_document(content)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self.path, text.encode())
        except OSError as error:
            hint = "Name another file with --out."
            raise InfluenceError(f"{self.path} cannot be written: {error.strerror}.", hint=hint) from None


def open_collection(environment: Environment, scenario: str, out: Path | None) -> Collection:
    """Return the further states that ``out`` (default: beside the scenario) holds; InfluenceError if they are another's."""
    path = out
    if path is None:
        if environment.folder is None:
            raise InfluenceError(f"{environment.name} has no folder to write to.", hint="Name a file with --out.")
        path = environment.folder / "scenarios" / f"{scenario}{MORE_SUFFIX}"
    if not path.exists():
        return Collection(path, scenario)
    more = validate_document(read_document(path), MoreStates)
    if more.scenario != scenario:
        raise InfluenceError(f"{path} holds initial states of {more.scenario!r}.", hint="Name another file with --out.")
    return Collection(path, scenario, dict(more.provenance), list(more.initial_states))


class Author:
    """What to ask for one scenario, and what to make of the answers."""

    def __init__(self, environment: Environment, scenario: Scenario, collection: Collection, seed: int) -> None:
        self._environment = environment
        self._scenario = scenario
        self._seed = seed
        self._known = [*scenario.initial_states, *collection.states]
        self._ids = Counter(state.id for state in self._known)
        everybody = [state for each in environment.scenarios.values() for state in each.initial_states]
        self._names = {str(state.profile["name"]) for state in [*everybody, *self._known] if "name" in state.profile}
        self._originals = Originals((state.id, opening(state)) for state in [*everybody, *collection.states])
        self.schema = answer_schema(scenario.initial_states)

    def prompt(self, attempt: int) -> tuple[ChatMessage, ...]:
        """Return what the model is asked the ``attempt``-th time; the examples shown change with it."""
        draw = random.Random(derive_seed(self._seed, "examples", self._environment.name, self._scenario.name, attempt))
        shown = draw.sample(self._known, min(_SHOWN, len(self._known)))
        examples = "\n".join(json.dumps(as_answer(state, self.schema), ensure_ascii=False) for state in shown)
        names = ", ".join(sorted(self._names)[-_NAMES_SHOWN:])
        text = (
            f"Setting: {self._environment.spec.description.strip()}\n"
            f"Situation: {self._scenario.title}. {self._scenario.description.strip()}\n\n"
            f"People written so far, one JSON object a line:\n{examples}\n\n"
            "Write one more person for this situation as a JSON object with the same fields: somebody of another age, "
            "work, country and temper, with their own reason and their own way of writing. The message is the first "
            "thing that this person types, in their own words, about their situation today. Repeat nothing from above."
            f"\nNames that are taken: {names}"
        )
        return (
            ChatMessage(role="system", content="You invent believable people for simulated conversations."),
            ChatMessage(role="user", content=text),
        )

    def judge(self, text: str) -> InitialState | str:
        """Return the initial state that an answer holds, or why it may not stay."""
        flat = self._read(text)
        if isinstance(flat, str):
            return flat
        message = str(flat.pop(MESSAGE))
        if len(message.split()) < _LEAST_WORDS:
            return "message too short"
        if flat.get("name") in self._names:
            return "name taken"
        nearest = self._originals.nearest(message)
        if nearest is not None and nearest[1] > LIMIT:
            return "near-duplicate"
        return InitialState(
            id=self._identifier(str(flat.get("name", "person"))),
            profile=flat,
            messages=(ScenarioMessage(speaker="user", text=message),),
        )

    def _read(self, text: str) -> dict[str, Any] | str:
        """Return the tidied fields of an answer, or why they are not those of the schema."""
        try:
            answer = json.loads(text)
        except ValueError:
            return "no JSON"
        if not isinstance(answer, dict) or set(answer) != set(self.schema["properties"]):
            return "other fields"
        flat = {name: _tidy(value) for name, value in answer.items()}
        for name, part in self.schema["properties"].items():
            problem = _objection(flat[name], int if part["type"] == "integer" else str)
            if problem is not None:
                return f"{name}: {problem}"
        return flat

    def accept(self, state: InitialState) -> None:
        """Let ``state`` count among those that further ones must differ from."""
        self._known.append(state)
        self._ids[state.id] += 1
        if "name" in state.profile:
            self._names.add(str(state.profile["name"]))
        self._originals.add(state.id, opening(state))

    def _identifier(self, name: str) -> str:
        stem = _SLUG.sub("-", name.lower()).strip("-")[:40] or "person"
        number = 2
        found = stem
        while self._ids[found]:
            found = f"{stem}-{number}"
            number += 1
        return found


def answer_schema(states: Sequence[InitialState]) -> dict[str, Any]:
    """Return the JSON schema of an answer: the profile that all ``states`` share, and the opening message."""
    shared = [name for name in states[0].profile if all(name in state.profile for state in states)]
    properties: dict[str, Any] = {}
    for name in shared:
        values = [state.profile[name] for state in states]
        if all(isinstance(value, int) and not isinstance(value, bool) for value in values):
            numbers = [value for value in values if isinstance(value, int)]
            properties[name] = {"type": "integer", "minimum": min(numbers), "maximum": max(numbers)}
        elif all(isinstance(value, str) for value in values):
            longest = max(len(str(value)) for value in values)
            properties[name] = {"type": "string", "maxLength": longest * 3 // 2}
    longest = max(len(opening(state)) for state in states)
    properties[MESSAGE] = {"type": "string", "maxLength": longest * 3 // 2}
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def as_answer(state: InitialState, schema: dict[str, Any]) -> dict[str, Any]:
    """Return a state in the form of an answer."""
    return {name: opening(state) if name == MESSAGE else state.profile.get(name) for name in schema["properties"]}


def opening(state: InitialState) -> str:
    """Return the last message that the user has written in an initial state."""
    return next((message.text for message in reversed(state.messages) if message.speaker == "user"), "")


def _objection(value: Any, kind: type) -> str | None:
    if isinstance(value, bool) or not isinstance(value, kind):
        return "of another kind"
    if value == "":
        return "empty"
    if isinstance(value, str) and any(mark in value for mark in ("{{", "{%", "{#")):
        return "marks of templates"
    return None


def _tidy(value: Any) -> Any:
    return visible(" ".join(value.split()), newlines=False) if isinstance(value, str) else value
