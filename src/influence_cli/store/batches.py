"""The batches of a run: what was sent to a provider to be answered later, and how far each is.

    RUN/batches/TOKEN.json     stage and the provider's names of file and batch
    RUN/batches/TOKEN.jsonl    the requests, a line each
    RUN/batches/TOKEN.keys     what each request is about, a line each

Invariant: requests and keys are whole before the state says that they are planned; the state changes by replacing its file.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import orjson
from pydantic import Field, ValidationError

from influence_cli.errors import InfluenceError
from influence_cli.schemas.frozen import Frozen
from influence_cli.store.connection import file_error
from influence_cli.store.exporters import whole_file

FOLDER = "batches"

Stage = Literal["planned", "uploaded", "started", "collected"]


class BatchRecord(Frozen):
    """How far a batch is."""

    token: str = Field(description="Names it, here and at the provider.")
    model: str = Field(description="``backend:model[@adapter]`` that is asked.")
    requests: int = Field(ge=0, description="Lines of its file.")
    stage: Stage = Field(default="planned", description="The last step that is known to be done.")
    file: str | None = Field(default=None, description="The provider's name of the file.")
    batch: str | None = Field(default=None, description="The provider's name of the batch.")


class BatchFolder:
    """The batches of one run, on disk."""

    def __init__(self, run: Path) -> None:
        self.path = run / FOLDER

    def open_batches(self) -> list[BatchRecord]:
        """Return the batches that are not collected, oldest first; InfluenceError if one cannot be read."""
        return [record for record in self.all_batches() if record.stage != "collected"]

    def all_batches(self) -> list[BatchRecord]:
        """Return every batch, oldest first."""
        found = []
        for path in sorted(self.path.glob("*.json")):
            try:
                found.append(BatchRecord.model_validate_json(path.read_bytes()))
            except (OSError, ValidationError):
                raise InfluenceError(
                    f"{path} does not tell how far a batch is.", hint="Remove it to ask anew."
                ) from None
        return found

    def plan(self, record: BatchRecord, lines: Iterable[bytes], keys: Iterable[dict[str, Any]]) -> BatchRecord:
        """Keep a batch that is about to be sent."""
        try:
            self.path.mkdir(exist_ok=True)
        except OSError as error:
            raise file_error(error, self.path) from None
        self._write(f"{record.token}.jsonl", b"".join(line + b"\n" for line in lines))
        self._write(f"{record.token}.keys", b"".join(orjson.dumps(key) + b"\n" for key in keys))
        return self.update(record)

    def update(self, record: BatchRecord) -> BatchRecord:
        """Keep how far a batch is; return it."""
        self._write(f"{record.token}.json", record.model_dump_json().encode())
        return record

    def lines(self, record: BatchRecord) -> list[bytes]:
        """Return the requests of a batch."""
        return self._read(f"{record.token}.jsonl")

    def keys(self, record: BatchRecord) -> list[dict[str, Any]]:
        """Return what each request is about."""
        return [orjson.loads(line) for line in self._read(f"{record.token}.keys")]

    def _write(self, name: str, content: bytes) -> None:
        with whole_file(self.path / name) as temporary:
            temporary.write_bytes(content)

    def _read(self, name: str) -> list[bytes]:
        try:
            return (self.path / name).read_bytes().splitlines()
        except OSError as error:
            raise file_error(error, self.path / name) from None
