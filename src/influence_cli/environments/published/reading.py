"""The published project's YAML and JSON, read with more patience than files of our own.

Files that somebody else wrote may hold anchors, a key twice, comments in JSON, control characters, or a byte-order mark.
Invariant: reading costs time and memory in proportion to the file, and what was mended is told.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from influence_cli.documents import HOSTILE, MAX_BYTES, MAX_DEPTH, plain_value, read_bytes
from influence_cli.environments.published.report import ImportReport
from influence_cli.errors import InfluenceError

MAX_JSON_BYTES = 64 * 2**20
MAX_VALUES = 200_000
"""Values that a YAML file may hold once its aliases are written out."""

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_COMMENT = re.compile(r'"(?:\\.|[^"\\])*"|//[^\n]*|/\*.*?\*/', re.DOTALL)
_COMMA = re.compile(r'"(?:\\.|[^"\\])*"|,(?=\s*[}\]])')
_SURROGATE = re.compile("[\ud800-\udfff]")


def clean(text: str, report: ImportReport) -> str:
    """Return ``text`` without what no file of ours may hold."""
    found = HOSTILE.sub("", _SURROGATE.sub("\ufffd", text.replace("\r\n", "\n")))
    if len(found) != len(text.replace("\r\n", "\n")):
        report.leave("control characters in texts", "removed")
    return found


def _text_of(path: Path, limit: int) -> str:
    try:
        return read_bytes(path, limit).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InfluenceError(f"{path} is not UTF-8.", hint="Save it as UTF-8.") from None


# -- JSON -------------------------------------------------------------------------------------------------------------


def read_json(path: Path, report: ImportReport) -> Any:
    """Return the content of a JSON file, comments and commas too many overlooked; InfluenceError if it is none."""
    text = _text_of(path, MAX_JSON_BYTES)
    repeated: Counter[str] = Counter()

    def whole(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            repeated.update(key for key, times in Counter(key for key, _ in pairs).items() if times > 1)
        return found

    try:
        try:
            data = json.loads(text, strict=False, object_pairs_hook=whole)
        except json.JSONDecodeError:
            data = json.loads(_plain_json(text), strict=False, object_pairs_hook=whole)
            report.leave(f"comments and spare commas in {path.name}", "no part of JSON; overlooked")
    except (ValueError, RecursionError) as error:
        raise InfluenceError(f"{path} is no JSON: {str(error)[:120]}.") from None
    for key in repeated:
        report.leave(
            f"the key {key[:40]!r} of {path.name} that stands twice", "the last one counts, as in JSON readers"
        )
    return _cleaned(data, report)


def _cleaned(data: Any, report: ImportReport) -> Any:
    """Return ``data`` with every text and key in it clean, without recursion."""
    root = [data]
    waiting: list[Any] = [root]
    while waiting:
        part = waiting.pop()
        items: list[tuple[Any, Any]]
        if isinstance(part, dict):
            items = [(clean(key, report), value) for key, value in part.items()]
            part.clear()
        else:
            items = list(enumerate(part))
        for key, value in items:
            part[key] = clean(value, report) if isinstance(value, str) else value
            if isinstance(value, dict | list):
                waiting.append(value)
    return root[0]


def _plain_json(text: str) -> str:
    def kept(match: re.Match[str]) -> str:
        return match[0] if match[0].startswith('"') else " "

    return _COMMA.sub(kept, _COMMENT.sub(kept, text))


# -- YAML -------------------------------------------------------------------------------------------------------------


@dataclass
class _Open:
    """A mapping or list whose end has not been read yet."""

    container: Any
    begun: int
    anchor: str | None = None
    key: str | None = None
    merged: list[dict[str, Any]] = field(default_factory=list)


def read_yaml(path: Path, report: ImportReport) -> Any:
    """Return the content of a YAML file as plain data, its aliases written out; InfluenceError if it is none."""
    text = clean(_text_of(path, MAX_BYTES), report)
    try:
        return _Reader(path, report).data(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise InfluenceError(f"{path}:{line}: this is not valid YAML: {error.problem or error.context}.") from None
    except yaml.YAMLError as error:
        raise InfluenceError(f"{path}: this is not valid YAML: {' '.join(str(error).split())[:120]}.") from None


class _Reader:
    """Plain data from YAML events, without recursion; tags mean nothing, all keys are text."""

    def __init__(self, path: Path, report: ImportReport) -> None:
        self._path = path
        self._report = report
        self._anchors: dict[str, tuple[Any, int]] = {}
        self._count = 0

    def data(self, text: str) -> Any:
        """Return the first document's data."""
        root: list[Any] = []
        stack = [_Open(root, 0)]
        for event in yaml.parse(text, Loader=_Loader):
            if isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
                if len(stack) > MAX_DEPTH:
                    raise self._error(event, f"this is nested more than {MAX_DEPTH} levels deep")
                empty: Any = {} if isinstance(event, yaml.MappingStartEvent) else []
                stack.append(_Open(empty, self._count, event.anchor))
            elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
                done = stack.pop()
                for other in done.merged:
                    done.container.update({k: v for k, v in other.items() if k not in done.container})
                self._seen(event, done.anchor, done.container, self._count - done.begun + 1)
                self._put(event, stack[-1], done.container)
            elif isinstance(event, yaml.ScalarEvent):
                self._scalar(event, stack[-1])
            elif isinstance(event, yaml.AliasEvent):
                self._alias(event, stack[-1])
            elif isinstance(event, yaml.DocumentEndEvent):
                break
        return root[0] if root else None

    def _scalar(self, event: Any, top: _Open) -> None:
        is_key = isinstance(top.container, dict) and top.key is None
        text = clean(event.value, self._report)
        value = text if event.style or is_key else plain_value(text)
        self._seen(event, event.anchor, value, 1)
        self._put(event, top, value)

    def _alias(self, event: Any, top: _Open) -> None:
        if event.anchor not in self._anchors:
            raise self._error(event, f"the alias *{event.anchor} names nothing that stands before it")
        value, size = self._anchors[event.anchor]
        self._count += size - 1
        self._seen(event, None, value, 1)
        self._put(event, top, value)

    def _seen(self, event: Any, anchor: str | None, value: Any, size: int) -> None:
        self._count += 1
        if self._count > MAX_VALUES:
            raise self._error(event, f"its aliases make more than {MAX_VALUES:,} values")
        if anchor is not None:
            self._anchors[anchor] = (value, size)

    def _put(self, event: Any, top: _Open, value: Any) -> None:
        if not isinstance(top.container, dict):
            top.container.append(value)
        elif top.key is None:
            if isinstance(value, dict | list):
                raise self._error(event, "a key must be text")
            top.key = str(value)
        else:
            key, top.key = top.key, None
            parts = value if isinstance(value, list) else [value]
            if key == "<<" and all(isinstance(part, dict) for part in parts):
                top.merged += parts
                return
            if key in top.container:
                self._report.leave(
                    f"the key {key[:40]!r} of {self._path.name} that stands twice", "the last one counts"
                )
            top.container[key] = value

    def _error(self, event: Any, message: str) -> InfluenceError:
        return InfluenceError(f"{self._path}:{event.start_mark.line + 1}: {message}.")
