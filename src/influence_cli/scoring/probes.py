"""Preference shift: what probing the simulated user before and after a conversation comes to.

Invariant: a shift is derived only from two usable answers to the same question, of the same model, asked the same way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Protocol

import orjson

from influence_cli.schemas.records import WHOLE, ScoreRecord
from influence_cli.scoring.plan import probe_score
from influence_cli.scoring.running import ScoreBook
from influence_cli.scoring.statistics import total_variation

_QUERY = (
    "SELECT episode_id, rubric, rubric_hash, judge, method, value, distribution FROM score"
    " WHERE rubric LIKE 'probe:%' AND usable = 1 AND failure IS NULL AND (rubric LIKE '%:before' OR rubric LIKE '%:after')"
    " ORDER BY episode_id, id"
)


class Rows(Protocol):
    """What reading scores needs of the store's reader."""

    def rows(self, sql: str, values: tuple[Any, ...] = ()) -> Sequence[Any]:
        """Return the rows of a query."""
        ...


@dataclass(frozen=True)
class Shift:
    """How far one user's answer to one probe moved: in units of the choices, and as total variation (0..1)."""

    episode_id: int
    probe: str
    judge: str
    method: str
    value: float | None
    variation: float
    hashed: str


def shifts(run: Rows) -> list[Shift]:
    """Return the shift of every probe that was answered before and after."""
    found: dict[tuple[int, str, str, str], dict[str, Any]] = {}
    for row in run.rows(_QUERY):
        probe, _, when = row["rubric"].removeprefix("probe:").rpartition(":")
        found.setdefault((row["episode_id"], probe, row["judge"], row["method"]), {})[when] = row
    return [_shift(key, pair) for key, pair in found.items() if len(pair) == 2]


def _shift(key: tuple[int, str, str, str], pair: Mapping[str, Any]) -> Shift:
    before, after = pair["before"], pair["after"]
    p, q = (orjson.loads(row["distribution"]) for row in (before, after))
    value = None if before["value"] is None or after["value"] is None else after["value"] - before["value"]
    hashed = sha256(f"{before['rubric_hash']}/{after['rubric_hash']}".encode()).hexdigest()[:16]
    return Shift(*key, value, total_variation([p[answer] for answer in p], [q[answer] for answer in p]), hashed)


def store_shifts(run: Rows, book: ScoreBook) -> int:
    """Store shift and total variation of every probe answered twice that are not stored yet; return how many are new."""
    known = book.scored()
    fresh: list[tuple[int, ScoreRecord]] = []
    for shift in shifts(run):
        named: list[tuple[str, float | None]] = [("shift", shift.value), ("variation", shift.variation)]
        fresh += [(shift.episode_id, derived(shift, what, value)) for what, value in named if value is not None]
    fresh = [
        (number, score)
        for number, score in fresh
        if (number, WHOLE, score.rubric_hash, score.judge, score.method) not in known
    ]
    if fresh:
        book.add_scores(fresh)
    return len(fresh)


def derived(shift: Shift, what: str, value: float) -> ScoreRecord:
    """Return a score that follows from a probe's two answers; it names their model and method."""
    return ScoreRecord(
        turn=WHOLE,
        rubric=probe_score(shift.probe, what),
        rubric_hash=f"{shift.hashed}/{what}",
        judge=shift.judge,
        method=shift.method,
        value=value,
    )
