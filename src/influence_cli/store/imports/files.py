"""Which format a file is in, and its entries."""

from __future__ import annotations

import json
from collections.abc import Iterator
from hashlib import sha256
from itertools import chain
from pathlib import Path
from typing import Any

from influence_cli.errors import InfluenceError
from influence_cli.store.connection import file_error
from influence_cli.store.imports.conversation import Conversation, ImportReport, Refused
from influence_cli.store.imports.exported import exported_conversations, is_exported
from influence_cli.store.imports.inspect_logs import is_inspect_log, log_conversations, read_log
from influence_cli.store.imports.pickles import read_pickle
from influence_cli.store.imports.tables import table_conversations

SUFFIXES = (".parquet", ".jsonl", ".pkl", ".pickle", ".eval", ".json")
_LONGEST_LINE = 64 * 2**20

_BROKEN = (OSError, ValueError, TypeError, LookupError, OverflowError, MemoryError, NotImplementedError)
"""What pyarrow raises for broken files, besides its own errors."""

Rows = Iterator[dict[str, Any]]


def read_conversations(path: Path, environment: str | None, report: ImportReport) -> Iterator[Conversation | Refused]:
    """Return the conversations of a file; InfluenceError if it is in no known format or holds nothing.

    ``environment`` names what the file does not: a trajectory table's environment.
    """
    suffix = path.suffix.lower()
    if suffix == ".eval" or (suffix == ".json" and is_inspect_log(path)):
        return log_conversations(read_log(path), environment)
    rows = _rows(path, suffix)
    first = next(rows, None)
    if first is None:
        raise InfluenceError(f"{path} holds no row.")
    every = chain([first], rows)
    if is_exported(first):
        return exported_conversations(every)
    return table_conversations(every, environment or environment_of(path), report)


def environment_of(path: Path) -> str:
    """Return the environment's name that a file's name begins with."""
    return path.name.split(".")[0].split("-")[0].split("_")[0].lower() or "imported"


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file."""
    digest = sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(2**20):
                digest.update(block)
    except OSError as error:
        raise file_error(error, path) from None
    return digest.hexdigest()


def _rows(path: Path, suffix: str) -> Rows:
    if suffix == ".parquet":
        return _parquet(path)
    if suffix in (".pkl", ".pickle"):
        return read_pickle(path)
    if suffix in (".jsonl", ".json"):
        return _json_lines(path)
    raise InfluenceError(f"{path.name} is in no format that is known here.", hint=f"Known: {', '.join(SUFFIXES)}.")


def _parquet(path: Path) -> Rows:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise InfluenceError("Parquet needs pyarrow.", hint="pip install 'influence-cli[parquet]'") from None
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=256):
                yield from batch.to_pylist()
    except (pa.ArrowException, *_BROKEN) as error:
        raise InfluenceError(f"{path} is no Parquet file: {str(error)[:120] or type(error).__name__}.") from None


def _json_lines(path: Path) -> Rows:
    try:
        with path.open("rb") as file:
            number = 0
            while line := file.readline(_LONGEST_LINE):
                number += 1
                if line.strip():
                    yield _object(line, path, number)
    except OSError as error:
        raise file_error(error, path) from None


def _object(line: bytes, path: Path, number: int) -> dict[str, Any]:
    if len(line) >= _LONGEST_LINE:
        raise InfluenceError(f"{path}:{number}: this line is longer than {_LONGEST_LINE // 2**20} MiB.")
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        raise InfluenceError(f"{path}:{number}: this line is no JSON.") from None
    if not isinstance(row, dict):
        raise InfluenceError(f"{path}:{number}: this line is no object.")
    return row
