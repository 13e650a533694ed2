"""YAML files read safely, with the place of everything in them.

Invariant: reading costs time and memory in proportion to the file, whatever it holds (no aliases, bounded depth and
size, only plain data), and every problem is reported with file, line, column and mend.
"""

from __future__ import annotations

import os
import re
import stat
import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from influence_cli.errors import InfluenceError
from influence_cli.sanitize import visible
from influence_cli.whole_files import write_whole

MAX_BYTES = 8 * 1024 * 1024
MAX_DEPTH = 64
_SHOWN_PROBLEMS = 10

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_Dumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
_INT = re.compile(r"[-+]?(0|[1-9][0-9_]*)\Z")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z")
_CONSTANTS: dict[str, Any] = {"": None, "~": None, "null": None, "true": True, "false": False}
HOSTILE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\u202a-\u202e\u2066-\u2069]")
"""Control characters and bidirectional overrides: in no file, written out or escaped."""

Location = tuple[str | int, ...]
M = TypeVar("M", bound=BaseModel)


class Position(NamedTuple):
    """A place in a file; both count from 1."""

    line: int
    column: int


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a file, where it is wrong, and the mend."""

    path: Path
    position: Position
    message: str
    hint: str = ""

    def __str__(self) -> str:
        """Return ``file:line:column: message mend``, fit for a terminal."""
        shown = f"{self.path}:{self.position.line}:{self.position.column}: {self.message}"
        return visible(f"{shown} {self.hint}".strip(), newlines=False)


class DocumentError(InfluenceError):
    """Files with problems, all of them in ``problems``, in the order of the files."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        lines = [str(problem) for problem in self.problems[:_SHOWN_PROBLEMS]]
        if len(self.problems) > _SHOWN_PROBLEMS:
            lines.append(f"... and {len(self.problems) - _SHOWN_PROBLEMS} more problems.")
        super().__init__("\n".join(lines))


@dataclass
class Document:
    """A YAML file as plain data, and where each value and key stands in it."""

    path: Path
    text: str
    data: Any = None
    values: dict[Location, tuple[Position, int, int]] = field(default_factory=dict)
    """By location: position, and first and last offset in ``text``."""
    keys: dict[Location, Position] = field(default_factory=dict)

    def position(self, location: Location) -> Position:
        """Return where the value at ``location`` stands, or its nearest existing parent."""
        for length in range(len(location), -1, -1):
            if location[:length] in self.values:
                return self.values[location[:length]][0]
        return Position(1, 1)

    def key_position(self, location: Location) -> Position:
        """Return where the key of ``location`` stands, or else its value."""
        return self.keys.get(location) or self.position(location)

    def find(self, location: Location, pattern: str) -> Position:
        """Return where the regular expression ``pattern`` first occurs inside the value at ``location``."""
        entry = self.values.get(location)
        if entry is None:
            return self.position(location)
        match = re.compile(pattern).search(self.text, entry[1], entry[2])
        if match is None:
            return entry[0]
        line_start = self.text.rfind("\n", 0, match.start()) + 1
        return Position(self.text.count("\n", 0, match.start()) + 1, match.start() - line_start + 1)

    def problem(self, location: Location, message: str, hint: str = "", *, pattern: str | None = None) -> Problem:
        """Return a problem with the value at ``location``, or with what ``pattern`` finds inside it."""
        position = self.find(location, pattern) if pattern is not None else self.position(location)
        return Problem(self.path, position, message, hint)


def read_document(path: Path, *, max_bytes: int = MAX_BYTES) -> Document:
    """Return the YAML file at ``path`` as plain data; DocumentError or InfluenceError if it cannot be."""
    raw = read_bytes(path, max_bytes)
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DocumentError([Problem(path, Position(line, 1), "The file is not UTF-8.", "Save it as UTF-8.")]) from None
    return parse_document(text.replace("\r\n", "\n"), path)


def read_bytes(path: Path, most: int) -> bytes:
    """Return what the file at ``path`` holds; InfluenceError if it is no file, cannot be read or is over ``most`` bytes."""
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise InfluenceError(f"{path} is not a file.", hint="Remove it, or put a file in its place.")
        if found.st_size > most:
            raise InfluenceError(
                f"{path} is {found.st_size / 1e6:.0f} MB; at most {most / 1e6:.0f} MB are read.",
                hint="Split it into smaller files.",
            )
        return path.read_bytes()
    except OSError as error:
        raise InfluenceError(f"{path} cannot be read: {os.strerror(error.errno or 0)}.") from None


def parse_document(text: str, path: Path) -> Document:
    """Return ``text`` as plain data under the name ``path``; DocumentError if it is not plain, bounded YAML."""
    hostile = HOSTILE.search(text)
    if hostile:
        start = text.rfind("\n", 0, hostile.start()) + 1
        position = Position(text.count("\n", 0, hostile.start()) + 1, hostile.start() - start + 1)
        name = f"U+{ord(hostile.group()):04X}"
        raise DocumentError([Problem(path, position, f"The control character {name} is not allowed.", "Remove it.")])
    document = Document(path, text)
    try:
        document.data = _Builder(document).build()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        position = Position(mark.line + 1, mark.column + 1) if mark else Position(1, 1)
        message = f"This is not valid YAML: {error.problem or error.context}."
        raise DocumentError([Problem(path, position, message)]) from None
    except yaml.YAMLError as error:
        raise DocumentError([Problem(path, Position(1, 1), f"This is not valid YAML: {error}.")]) from None
    return document


class _Builder:
    """Plain data from YAML events, without recursion: libyaml's own composer overflows the C stack on deep input."""

    def __init__(self, document: Document) -> None:
        self.document = document

    def fail(self, event: Any, message: str, hint: str = "") -> DocumentError:
        mark = event.start_mark
        return DocumentError([Problem(self.document.path, Position(mark.line + 1, mark.column + 1), message, hint)])

    def build(self) -> Any:
        """Return the data of the only document."""
        root: list[Any] = []
        documents = 0
        # Each entry: container, its location, its first event, and for a mapping the key that awaits its value.
        stack: list[list[Any]] = [[root, None, None, None]]
        for event in yaml.parse(self.document.text, Loader=_Loader):
            if isinstance(event, yaml.ScalarEvent):
                self.add(stack, event, self.scalar(event, stack), _end(event))
            elif isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
                if len(stack) > MAX_DEPTH:
                    raise self.fail(event, f"This is nested more than {MAX_DEPTH} levels deep.")
                self.tagless(event)
                container: Any = {} if isinstance(event, yaml.MappingStartEvent) else []
                location = self.add(stack, event, container, _end(event))
                stack.append([container, location, event, None])
            elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
                _, location, _, _ = stack.pop()
                position, first, _ = self.document.values[location]
                self.document.values[location] = (position, first, _end(event))
            elif isinstance(event, yaml.AliasEvent):
                raise self.fail(event, "Anchors and aliases are not allowed.", "Write the text out.")
            elif isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise self.fail(event, "A file holds one YAML document only.", "Remove this '---'.")
        return root[0] if root else None

    def tagless(self, event: Any) -> None:
        if event.tag is not None and event.tag != "!":
            raise self.fail(event, f"The tag {event.tag} is not allowed.", "Remove it: only plain data is read.")
        if event.anchor is not None:
            raise self.fail(event, "Anchors and aliases are not allowed.", "Write the text out.")

    def scalar(self, event: Any, stack: list[list[Any]]) -> Any:
        self.tagless(event)
        top = stack[-1]
        awaits_key = isinstance(top[0], dict) and top[3] is None
        hostile = HOSTILE.search(event.value)
        if hostile:
            raise self.fail(event, f"The control character U+{ord(hostile.group()):04X} is not allowed.", "Remove it.")
        return event.value if event.style or awaits_key else plain_value(event.value)

    def add(self, stack: list[list[Any]], event: Any, value: Any, end: int) -> Location:
        container, location, _, key = stack[-1]
        mark = event.start_mark
        position = Position(mark.line + 1, mark.column + 1)
        if isinstance(container, dict):
            if key is None:
                if not isinstance(value, str):
                    raise self.fail(event, "A key must be text.")
                if value in container:
                    first = self.document.keys[(*location, value)]
                    raise self.fail(event, f"The key {value!r} stands twice.", f"Line {first.line} has it already.")
                stack[-1][3] = value
                self.document.keys[(*location, value)] = position
                return (*location, value)
            container[key] = value
            stack[-1][3] = None
            here: Location = (*location, key)
        elif location is None:
            container.append(value)
            here = ()
        else:
            here = (*location, len(container))
            container.append(value)
        self.document.values[here] = (position, mark.index, end)
        return here


def plain_value(text: str) -> Any:
    """Return what an unquoted scalar means: nothing, a truth value, a number, or its own text."""
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if _INT.match(text) and len(text) <= 32:
        return int(text.replace("_", ""))
    if _FLOAT.match(text) and len(text) <= 64:
        return float(text)
    return text


class _Writer(_Dumper):  # type: ignore[misc]
    """Writes what :func:`plain_value` reads back: texts that look like numbers in quotes, nothing by reference."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        """Return True: no value is an alias of another."""
        return True


def _represent_text(writer: Any, text: str) -> Any:
    quoted = None if isinstance(plain_value(text), str) else "'"
    return writer.represent_scalar("tag:yaml.org,2002:str", text, style=quoted)


_Writer.add_representer(str, _represent_text)


def write_document(content: Any) -> str:
    """Return plain data as YAML that is read back as it was."""
    text: str = yaml.dump(content, Dumper=_Writer, sort_keys=False, allow_unicode=True, width=110)
    return text


def save_document(path: Path, content: Any) -> None:
    """Write plain data to ``path`` as YAML, the file whole or the old one left; raises OSError."""
    write_whole(path, write_document(content).encode())


def _end(event: Any) -> int:
    end: int = event.end_mark.index
    return end


def validate_document(document: Document, model: type[M]) -> M:
    """Return the document's data as ``model``; DocumentError with every problem's place and mend."""
    try:
        return model.model_validate(document.data if document.data is not None else {}, strict=False)
    except ValidationError as error:
        raise DocumentError(schema_problems(document, error, model)) from None


def read_manifest(path: Path, model: type[M], known: int) -> M:
    """Return the manifest in ``path``, whose ``schema_version`` this program knows up to ``known``.

    InfluenceError for a newer one, DocumentError for what is wrong in it.
    """
    document = read_document(path)
    version = document.data.get("schema_version") if isinstance(document.data, dict) else None
    if isinstance(version, int) and version > known:
        raise InfluenceError(
            f"{path.parent} was made by a newer version of this program (schema {version}, known {known}).",
            hint="Upgrade: pip install -U influence-cli.",
        )
    return validate_document(document, model)


def schema_problems(document: Document, error: ValidationError, model: type[BaseModel]) -> list[Problem]:
    """Return one problem for each of pydantic's, at its place in the file."""
    problems = []
    for details in error.errors(include_url=False, include_context=True):
        location = _present(document, details["loc"])
        kind = details["type"]
        name = details["loc"][-1] if details["loc"] else ""
        if kind == "extra_forbidden":
            known = _fields_at(model, details["loc"][:-1])
            position = document.key_position(location)
            problems.append(Problem(document.path, position, f"Unknown key {name!r}.", _nearest(str(name), known)))
        elif kind == "missing":
            hint = f"Add '{name}: ...' here."
            problems.append(document.problem(location, f"The key {name!r} is missing.", hint))
        else:
            shown = ".".join(str(part) for part in details["loc"])
            message = details["msg"].removeprefix("Value error, ")
            problems.append(document.problem(location, f"{shown}: {message}." if shown else f"{message}."))
    return problems


def _present(document: Document, location: Iterable[str | int]) -> Location:
    """Return ``location`` without the parts that pydantic adds for unions and that are not in the file."""
    here: Location = ()
    for part in location:
        if (*here, part) in document.values:
            here = (*here, part)
    return here


def _nearest(name: str, known: Iterable[str]) -> str:
    names = sorted(known)
    near = get_close_matches(name, names, n=1, cutoff=0.6)
    if near:
        return f"Did you mean {near[0]!r}?"
    return f"Known keys: {', '.join(names)}." if names else ""


def _fields_at(model: type[BaseModel], location: Sequence[str | int]) -> set[str]:
    """Return the names of the fields that may stand at ``location`` of ``model``."""
    types_here: list[Any] = [model]
    for part in location:
        following: list[Any] = []
        for kind in types_here:
            following.extend(_step(kind, part))
        types_here = following
    names: set[str] = set()
    for kind in types_here:
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            names.update(kind.model_fields)
    return names


def _step(kind: Any, part: str | int) -> list[Any]:
    """Return the types that may stand below ``part`` of a value of type ``kind``."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        found = kind.model_fields.get(str(part))
        return _alternatives(found.annotation) if found is not None else []
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is None or not arguments:
        return []
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return _alternatives(arguments[1])
    return _alternatives(arguments[0])


def _alternatives(annotation: Any) -> list[Any]:
    if get_origin(annotation) in (Union, types.UnionType):
        return [kind for kind in get_args(annotation) if kind is not type(None)]
    return [annotation]
