"""The document of the fault campaign: rows of several sittings in one file, and the table that is made of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SCHEMA = "influence.faults/1"
COLUMNS = {
    "injected": "injected",
    "lost": "lost",
    "duplicated": "twice",
    "failed_at_first": "failed at first",
    "failed_for_good": "for good",
    "in_vain": "paid in vain",
    "answered": "of answers",
    "needless": "repeated without need",
}
STAGES = ("simulate", "score", "train", "sweep")


def opened(path: Path, *, merge: bool) -> dict[str, Any]:
    """Return the document in ``path`` to add to, or an empty one; what has no sitting yet is of the first."""
    document: dict[str, Any] = {"schema": SCHEMA, "sittings": [], "rows": []}
    if not merge or not path.is_file():
        return document
    found = json.loads(path.read_text())
    if "sittings" not in found:
        found["sittings"] = [{name: found.pop(name) for name in ("made", "machine", "cores") if name in found}]
    for each in (*found["rows"], *(found[name] for name in ("soak", "disk") if name in found)):
        each.setdefault("sitting", 0)
    return document | found


def begin_sitting(document: dict[str, Any], about: Mapping[str, Any]) -> int:
    """Add a sitting and return its number; those that no figure is of any more stay, since numbers refer to places."""
    document["sittings"].append(dict(about))
    return len(document["sittings"]) - 1


def put(document: dict[str, Any], row: Mapping[str, Any]) -> None:
    """Add ``row``, in place of an earlier one of its stage, fault and share."""
    rows = document["rows"]
    place = next((index for index, each in enumerate(rows) if _name(each) == _name(row)), None)
    if place is None:
        rows.append(dict(row))
    else:
        rows[place] = dict(row)


def save(document: Mapping[str, Any], path: Path) -> None:
    """Write the document, whole or not at all."""
    part = path.with_name(f"{path.name}.part")
    part.write_text(json.dumps(document, indent=1) + "\n")
    part.replace(path)


def _name(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return row["stage"], row["fault"], row["share"]


def markdown(document: Mapping[str, Any]) -> str:
    """Return the table of `docs/reliability.md`: a line for each fault, the commands side by side."""
    stages = [name for name in STAGES if any(row["stage"] == name for row in document["rows"])]
    faults: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in document["rows"]:
        faults.setdefault((row["fault"], row["share"]), {})[row["stage"]] = row
    lines = [f"| fault | share | {' | '.join(COLUMNS.values())} |", "| --- " * (len(COLUMNS) + 2) + "|"]
    for (fault, share), found in faults.items():
        cells = [" / ".join(str(found[s][column]) if s in found else "-" for s in stages) for column in COLUMNS]
        cells = ["0" if set(cell.split(" / ")) <= {"0", "-"} and "0" in cell else cell for cell in cells]
        lines.append(f"| {fault.replace('_', ' ')} | {'' if share is None else f'{share:.0%}'} | {' | '.join(cells)} |")
    return "\n".join(lines)
