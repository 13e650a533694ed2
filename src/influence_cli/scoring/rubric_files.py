"""Finding rubrics: those that are shipped, and an author's file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path

from influence_cli.documents import read_document, validate_document
from influence_cli.errors import InfluenceError, UnknownNameError
from influence_cli.schemas.rubrics import Rubric, RubricFile

SHIPPED = Path(__file__).resolve().parent / "rubrics"


def read_rubrics(path: Path) -> tuple[Rubric, ...]:
    """Return the rubrics of a file; DocumentError with every problem of it."""
    return validate_document(read_document(path), RubricFile).rubrics


@cache
def shipped_rubrics() -> dict[str, Rubric]:
    """Return the rubrics that come with the program, by name."""
    return {rubric.id: rubric for path in sorted(SHIPPED.glob("*.yaml")) for rubric in read_rubrics(path)}


def pick_rubrics(names: Sequence[str], files: Sequence[Path] = ()) -> list[Rubric]:
    """Return the rubrics called by ``names`` (names or tags) and all of ``files``, each once.

    Raises UnknownNameError for a name that is neither, InfluenceError where two files name different rubrics alike.
    """
    known = dict(shipped_rubrics())
    own: list[Rubric] = []
    for path in files:
        for rubric in read_rubrics(path):
            if rubric.id in {each.id for each in own}:
                raise InfluenceError(f"The rubric {rubric.id!r} stands twice in the files given.", hint="Rename one.")
            own.append(rubric)
            known[rubric.id] = rubric
    chosen: dict[str, Rubric] = {rubric.id: rubric for rubric in own}
    tags = tags_of(known.values())
    for name in names:
        meant = meant_by(name, known)
        if meant is not None:
            chosen[meant] = known[meant]
        elif name in tags:
            chosen.update({rubric.id: rubric for rubric in known.values() if name in rubric.tags})
        else:
            raise UnknownNameError("rubric or tag", name, [*known, *tags])
    return list(chosen.values())


def meant_by(name: str, known: Mapping[str, Rubric]) -> str | None:
    """Return the name of the rubric that ``name`` means, be it one of its other names; hyphens or underscores."""
    wanted = name.replace("_", "-")
    for rubric in known.values():
        if wanted in (each.replace("_", "-") for each in (rubric.id, *rubric.also_called)):
            return rubric.id
    return None


def tags_of(rubrics: Iterable[Rubric]) -> list[str]:
    """Return every tag of ``rubrics``, sorted."""
    return sorted({tag for rubric in rubrics for tag in rubric.tags})
