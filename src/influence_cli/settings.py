"""One settings model from several sources: defaults, YAML files with ``extends:``, ``--set``, flags; the later wins.

Invariant: every source is validated by itself first, so that a mistake is reported where it was made: in a file with
line and column, on the command line with its flag.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, JsonValue, ValidationError

from influence_cli.documents import Document, DocumentError, parse_document, plain_value, read_document, schema_problems
from influence_cli.errors import InfluenceError

EXTENDS = "extends"
MAX_FILES = 32
REPLACED = frozenset({"populations"})
"""Mappings that a later source replaces as a whole: mixing the fractions of two sources would not sum to one."""

_PAIR = re.compile(r"\\ud[89ab][0-9a-f]{2}\\ud[c-f][0-9a-f]{2}")
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./")
S = TypeVar("S", bound=BaseModel)


def resolve_settings(
    model: type[S],
    *,
    files: Sequence[Path] = (),
    base: Mapping[str, Any] | None = None,
    assignments: Sequence[str] = (),
    flags: Mapping[str, Any] | None = None,
    flag_names: Mapping[str, str] | None = None,
) -> S:
    """Return ``model`` from ``base``, then ``files`` in order, then ``flags``, then ``assignments`` (``a.b=value``).

    ``flags`` maps dotted keys to values that were really given; ``flag_names`` maps a dotted key to the flag that sets
    it, for messages. Raises DocumentError or InfluenceError naming the file, line or flag.
    """
    merged: dict[str, Any] = dict(base or {})
    for path in files:
        for document in _chain(path):
            merged = merge(merged, _checked(document, model))
    for key, value in (flags or {}).items():
        shown = (flag_names or {}).get(key, f"--set {key}")
        merged = merge(merged, _single(model, key, value, shown))
    for assignment in assignments:
        key, value = parse_assignment(assignment)
        merged = merge(merged, _single(model, key, value, f"--set {key}"))
    try:
        return model.model_validate(merged)
    except ValidationError as error:
        raise InfluenceError("; ".join(_messages(error))) from None


def parse_assignment(text: str, *, flag: str = "--set") -> tuple[str, Any]:
    """Return key and value of ``key=value``, the value read as YAML; InfluenceError naming ``flag`` otherwise."""
    key, separator, value = text.partition("=")
    if not separator or not key.strip():
        raise InfluenceError(f"{flag} {text!r} is not KEY=VALUE.", hint=f"For instance {flag} seed=7.")
    try:
        return key.strip(), parse_document(value, Path(f"{flag} {key.strip()}")).data
    except DocumentError as error:
        raise InfluenceError(f"{flag} {key.strip()}: {error.problems[0].message}") from None


def assignment(key: str, value: JsonValue) -> str:
    """Return ``key=value``, which :func:`parse_assignment` reads back as it was."""
    return f"{key}={as_yaml(value)}"


def as_yaml(value: JsonValue) -> str:
    """Return ``value`` as YAML of one line: bare where that is read back as the same."""
    if isinstance(value, str) and value and set(value) <= _PLAIN and plain_value(value) == value:
        return value
    return repr(value) if isinstance(value, float) else _PAIR.sub(_as_one, json.dumps(value))


def _as_one(pair: re.Match[str]) -> str:
    """Return a character that JSON writes as two escapes as the one escape that YAML has for it."""
    character = json.loads('"' + pair.group() + '"')
    return f"\\U{ord(character):08x}"


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``below`` with ``above`` over it, mappings merged key by key but for :data:`REPLACED`."""
    result = dict(below)
    for key, value in above.items():
        old = result.get(key)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        result[key] = merge(old, value) if both and key not in REPLACED else value  # type: ignore[arg-type]
    return result


def changed_from(before: BaseModel, after: BaseModel) -> dict[str, Any]:
    """Return the settings of ``before`` that are otherwise in ``after``, which has them all, as they were."""
    old, new = before.model_dump(mode="json"), after.model_dump(mode="json")
    return {name: value for name, value in old.items() if value != new[name]}


def _chain(path: Path, above: tuple[Path, ...] = ()) -> Iterator[Document]:
    """Yield the files that ``path`` extends, then itself; InfluenceError for a circle or too long a chain."""
    resolved = path.expanduser().resolve()
    if resolved in above:
        raise InfluenceError(f"{path} extends itself, by way of {above[-1].name}.", hint="Break the circle.")
    if len(above) >= MAX_FILES:
        raise InfluenceError(f"{path} stands at the end of {MAX_FILES} files that extend each other.")
    if not resolved.is_file():
        by = f" (extended by {above[-1]})" if above else ""
        raise InfluenceError(f"There is no file {path}{by}.")
    document = read_document(path)
    if document.data is None:
        document.data = {}
    if not isinstance(document.data, dict):
        raise DocumentError([document.problem((), "A configuration holds keys and values.", "For instance 'n: 64'.")])
    parents = document.data.pop(EXTENDS, [])
    names = [parents] if isinstance(parents, str) else parents
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DocumentError([document.problem((EXTENDS,), "This is no file name, nor a list of them.")])
    for name in names:
        yield from _chain(path.parent / name, (*above, resolved))
    yield document


def _checked(document: Document, model: type[BaseModel]) -> dict[str, Any]:
    try:
        model.model_validate(document.data)
    except ValidationError as error:
        raise DocumentError(schema_problems(document, error, model)) from None
    data: dict[str, Any] = document.data
    return data


def _single(model: type[BaseModel], key: str, value: Any, shown: str) -> dict[str, Any]:
    """Return ``value`` under the dotted ``key``, validated by itself; InfluenceError naming ``shown``."""
    data: Any = value
    for part in reversed(key.split(".")):
        data = {part: data}
    try:
        model.model_validate(data)
    except ValidationError as error:
        details = error.errors(include_url=False)[0]
        if details["type"] == "extra_forbidden":
            name = ".".join(str(part) for part in details["loc"])
            near = get_close_matches(key, list(setting_names(model)), n=1, cutoff=0.5)
            hint = f"Did you mean {near[0]!r}?" if near else None
            raise InfluenceError(f"{shown}: there is no setting {name!r}.", hint=hint) from None
        raise InfluenceError(f"{shown}: {_plain(details['msg'])}.") from None
    result: dict[str, Any] = data
    return result


def setting_names(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yield the dotted names of all settings of ``model``."""
    for name, field in model.model_fields.items():
        yield prefix + name
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from setting_names(field.annotation, f"{prefix}{name}.")


def _messages(error: ValidationError) -> Iterator[str]:
    for details in error.errors(include_url=False):
        where = ".".join(str(part) for part in details["loc"])
        yield f"{where}: {_plain(details['msg'])}." if where else f"{_plain(details['msg'])}."


def _plain(message: str) -> str:
    return message.removeprefix("Value error, ").rstrip(".")
