"""Labels: what a person thinks of a conversation or a reply, with who and when.

Labels may be written while another process writes the run: each is one short transaction, and SQLite lets them take
turns. Everything else in a run has one writer.
"""

from __future__ import annotations

import csv
import io
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import Field

from influence_cli.errors import InfluenceError
from influence_cli.schemas.frozen import Frozen
from influence_cli.store.connection import connect, explained
from influence_cli.store.exporters import STDOUT, ExporterOptions, whole_file
from influence_cli.store.reader import RunReader, outdated
from influence_cli.store.rows import safe
from influence_cli.store.run_directory import RunDirectory
from influence_cli.store.schema import SCHEMA_VERSION, check_version

COLUMNS = (
    "episode", "environment", "scenario", "initial_state", "sample", "iteration", "turn", "rubric", "label", "note",
    "flag", "annotator", "time",
)  # fmt: skip
"""The columns of an export of labels, which ``influence score calibrate --labels`` reads."""

_ALL = (
    "SELECT l.episode_id, e.environment, e.scenario, e.initial_state, e.sample, e.iteration, l.turn, l.rubric, l.value,"
    " l.note, l.flag, l.author, l.time FROM label l JOIN episode e ON e.id = l.episode_id ORDER BY l.id"
)
_PUT = (
    "INSERT INTO label (episode_id, turn, rubric, value, note, flag, author, time) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
    " ON CONFLICT (episode_id, turn, rubric, author) DO UPDATE SET value = excluded.value, note = excluded.note,"
    " flag = excluded.flag, time = excluded.time"
)


class LabelRecord(Frozen):
    """One label: a row of ``label``. One person has one label for a rubric and turn; a new one takes its place."""

    episode_id: int = Field(ge=1, description="The conversation's number.")
    turn: int = Field(default=0, ge=0, description="The agent reply that was judged; 0: the whole conversation.")
    rubric: str = Field(description="Name of the rubric.")
    value: str | None = Field(default=None, description="The choice; None: only a note or a flag.")
    note: str | None = Field(default=None, description="Free text.")
    flag: bool = Field(default=False, description="Whether to look at it again.")
    author: str = Field(min_length=1, description="Who.")
    time: float = Field(default=0.0, description="When, in seconds since 1970; set when it is stored.")

    @property
    def empty(self) -> bool:
        """Whether it says nothing."""
        return self.value is None and not self.note and not self.flag


def write_label(directory: RunDirectory, label: LabelRecord) -> LabelRecord:
    """Store ``label``, or remove it if it says nothing; return it with its time. InfluenceError where it cannot be."""
    stored = label.model_copy(update={"time": time.time()})
    if not directory.database.is_file():
        raise InfluenceError(f"{directory.path} holds no conversation yet.")
    connection = connect(directory.database, write=True)
    try:
        with explained(directory.database):
            version = check_version(connection, directory.database)
            if version < SCHEMA_VERSION:
                raise outdated(directory, version)
            if stored.empty:
                key = (stored.episode_id, stored.turn, stored.rubric, stored.author)
                connection.execute(
                    "DELETE FROM label WHERE episode_id = ? AND turn = ? AND rubric = ? AND author = ?", key
                )
            else:
                connection.execute(_PUT, _row(stored))
    finally:
        connection.close()
    return stored


def _row(label: LabelRecord) -> tuple[Any, ...]:
    note = safe(label.note) if label.note else None
    author = safe(label.author)
    return (label.episode_id, label.turn, label.rubric, label.value, note, int(label.flag), author, label.time)


def labels_of(run: RunReader, episode_id: int) -> list[LabelRecord]:
    """Return the labels of a conversation, by turn."""
    rows = run.rows("SELECT * FROM label WHERE episode_id = ? ORDER BY turn, id", (episode_id,))
    return [
        LabelRecord(
            episode_id=row["episode_id"], turn=row["turn"], rubric=row["rubric"], value=row["value"], note=row["note"],
            flag=bool(row["flag"]), author=row["author"], time=row["time"],
        )
        for row in rows
    ]  # fmt: skip


def label_rows(run: RunReader) -> Iterator[tuple[Any, ...]]:
    """Yield every label of a run as the values of :data:`COLUMNS`."""
    from datetime import UTC, datetime

    for row in run.rows(_ALL):
        *facts, when = row
        yield (*("" if fact is None else fact for fact in facts), datetime.fromtimestamp(when, UTC).isoformat())


class Labels:
    """An exporter: one label a line, as comma-separated values."""

    suffix = "csv"

    def __init__(self, options: ExporterOptions) -> None:
        self.options = options

    def export(self, run: RunReader, out: Path) -> int:
        """Write the run's labels to ``out``; return how many there are."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        count = 0
        for row in label_rows(run):
            writer.writerow(row)
            count += 1
        if out == STDOUT:
            sys.stdout.write(text.getvalue())
        else:
            with whole_file(out) as temporary:
                temporary.write_text(text.getvalue(), encoding="utf-8")
        return count
