"""People's labels: a CSV file, one label a line.

Columns: which conversation (``episode``, its number in the run; or ``scenario`` and ``initial_state``, and where these are
not enough ``environment``, ``iteration``, ``sample``), ``turn`` (empty or 0: as a whole), ``rubric``, ``label``, and
``annotator`` (may be missing: one person). A line with a ``note`` or a ``flag`` and no label is passed over. Every
mistake is reported with file and line.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from influence_cli.documents import DocumentError, Position, Problem
from influence_cli.errors import InfluenceError

_WHERE = ("environment", "scenario", "initial_state", "iteration", "sample")
_KNOWN = ("episode", *_WHERE, "turn", "rubric", "label", "annotator")
_ONE_PERSON = "person"


@dataclass(frozen=True)
class Label:
    """What one person says of one conversation, or of a turn of it."""

    episode_id: int
    turn: int
    rubric: str
    text: str
    annotator: str


def read_labels(path: Path, episodes: Sequence[Any]) -> list[Label]:
    """Return the labels of a file; ``episodes`` are the rows of the run's table. DocumentError with every problem."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            columns = [name.strip().lower() for name in reader.fieldnames or ()]
            _check_columns(path, columns)
            reader.fieldnames = columns
            return _labels(path, reader, episodes)
    except OSError as error:
        raise InfluenceError(f"{path} cannot be read: {error.strerror}.") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise InfluenceError(f"{path} is no CSV file in UTF-8: {error}.") from None


def _check_columns(path: Path, columns: Sequence[str]) -> None:
    needed = [name for name in ("rubric", "label") if name not in columns]
    if "episode" not in columns and not {"scenario", "initial_state"} <= set(columns):
        needed.append("episode (or scenario and initial_state)")
    if needed:
        problem = Problem(path, Position(1, 1), f"The column {needed[0]} is missing.", f"Columns: {', '.join(_KNOWN)}.")
        raise DocumentError([problem])


def _labels(path: Path, reader: csv.DictReader[str], episodes: Sequence[Any]) -> list[Label]:
    by_number = {row["id"]: row for row in episodes}
    found: list[Label] = []
    problems: list[Problem] = []
    seen: dict[tuple[int, int, str, str], int] = {}
    for line in reader:
        number = reader.line_num
        if _is_remark(line):
            continue
        cells = {name: (line.get(name) or "").strip() for name in _KNOWN}
        try:
            label = _label(cells, by_number)
            place = (label.episode_id, label.turn, label.rubric, label.annotator)
            if place in seen:
                raise ValueError(f"line {seen[place]} has a label of {label.annotator} for this already")
            seen[place] = number
            found.append(label)
        except ValueError as error:
            problems.append(Problem(path, Position(number, 1), f"{error}."))
    if problems:
        raise DocumentError(problems)
    if not found:
        raise InfluenceError(f"{path} holds no label.")
    return found


def _is_remark(line: Mapping[str, str | None]) -> bool:
    """Return whether a line holds only a note or a flag, as the viewer's export has them."""
    label, note, flag = ((line.get(name) or "").strip() for name in ("label", "note", "flag"))
    return not label and (bool(note) or flag not in ("", "0"))


def _label(cells: Mapping[str, str], by_number: Mapping[int, Any]) -> Label:
    for name in ("rubric", "label"):
        if not cells[name]:
            raise ValueError(f"the {name} is empty")
    turn = cells["turn"] or "0"
    if not turn.isdigit():
        raise ValueError(f"the turn {turn!r} is no whole number")
    annotator = cells["annotator"] or _ONE_PERSON
    return Label(_episode(cells, by_number), int(turn), cells["rubric"], cells["label"], annotator)


def _episode(cells: Mapping[str, str], by_number: Mapping[int, Any]) -> int:
    if cells["episode"]:
        if not cells["episode"].isdigit() or int(cells["episode"]) not in by_number:
            raise ValueError(f"the run has no episode {cells['episode']!r}")
        return int(cells["episode"])
    given = {name: cells[name] for name in _WHERE if cells[name]}
    fits = [n for n, row in by_number.items() if all(str(row[name]) == value for name, value in given.items())]
    if len(fits) != 1:
        shown = ", ".join(f"{name}={value}" for name, value in given.items())
        more = ", ".join(name for name in _WHERE if not cells[name])
        hint = (
            f"{len(fits)} conversations fit {shown}; say {more}, or episode"
            if fits
            else f"no conversation fits {shown}"
        )
        raise ValueError(hint)
    return fits[0]
