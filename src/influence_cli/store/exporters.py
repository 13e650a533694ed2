"""Writing a run's trajectories in other formats.

Invariant: a file appears whole or not at all, and memory does not grow with the run.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import orjson

from influence_cli.errors import InfluenceError
from influence_cli.schemas.frozen import Frozen
from influence_cli.store.connection import file_error
from influence_cli.store.reader import RunReader
from influence_cli.whole_files import sync_file, sync_folder

STDOUT = Path("-")
_ROW_GROUP = 512


class ExporterOptions(Frozen):
    """Exporters that come with the program have no options."""


class Exporter(Protocol):
    """A format for ``influence export``; made from its validated options.

    One that writes something else than trajectories may say what in ``counts``.
    """

    suffix: str

    def export(self, run: RunReader, out: Path) -> int:
        """Write the run's trajectories to ``out`` (``-``: stdout, if the format can); return how many there are."""
        ...


class JsonLines:
    """One trajectory a line, as the object ``influence.trajectory/1``."""

    suffix = "jsonl"

    def __init__(self, options: ExporterOptions) -> None:
        self.options = options

    def export(self, run: RunReader, out: Path) -> int:
        """Write the run's trajectories to ``out``; return how many there are."""
        if out == STDOUT:
            return self._write(run, sys.stdout.buffer)
        with whole_file(out) as temporary, temporary.open("wb") as file:
            return self._write(run, file)

    def _write(self, run: RunReader, file: BinaryIO) -> int:
        count = 0
        for trajectory in run.trajectories():
            file.write(orjson.dumps(trajectory, option=orjson.OPT_APPEND_NEWLINE))
            count += 1
        file.flush()
        return count


class Parquet:
    """One trajectory a row; messages and judgements are nested, profiles are JSON text."""

    suffix = "parquet"

    def __init__(self, options: ExporterOptions) -> None:
        self.options = options

    def export(self, run: RunReader, out: Path) -> int:
        """Write the run's trajectories to ``out``; InfluenceError if it is stdout."""
        if out == STDOUT:
            raise InfluenceError("Parquet cannot be written to stdout.", hint="Name a file with --out.")
        with whole_file(out) as temporary:
            return write_parquet(run.trajectories(), temporary)


def write_parquet(trajectories: Iterator[dict[str, Any]], out: Path) -> int:
    """Write trajectories to ``out``, one a row; return how many there are."""
    import pyarrow
    from pyarrow import parquet

    schema = _parquet_schema()
    count = 0
    with parquet.ParquetWriter(out, schema, compression="zstd") as writer:
        for rows in _groups(trajectories):
            writer.write_table(pyarrow.Table.from_pylist(rows, schema=schema))
            count += len(rows)
    return count


def _groups(trajectories: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    while rows := [_flat(trajectory) for trajectory in islice(trajectories, _ROW_GROUP)]:
        yield rows


def _flat(trajectory: dict[str, Any]) -> dict[str, Any]:
    judgements: list[dict[str, Any]] = []
    for entry in trajectory["judgements"]:
        judgements.extend({"turn": entry["turn"], "role": role, **entry[role]} for role in entry if role != "turn")
    messages = [
        {**message, "tool_calls": orjson.dumps(message["tool_calls"]).decode()} for message in trajectory["messages"]
    ]
    profile = orjson.dumps(trajectory["profile"]).decode()
    return {**trajectory, "profile": profile, "messages": messages, "judgements": judgements}


def _parquet_schema() -> Any:
    import pyarrow as pa

    text, number, whole = pa.string(), pa.float64(), pa.int64()
    message = {
        "turn": whole, "speaker": text, "text": text, "state": text, "source": text, "finish_reason": text,
        "tool_calls": text, "tool_call_id": text, "outcome": text,
    }  # fmt: skip
    judgement = {
        "turn": whole, "role": text, "choices": pa.list_(text), "probabilities": pa.list_(number), "expected": number,
        "mass": number, "method": text, "draws": whole, "outcome": text, "usable": pa.bool_(),
    }  # fmt: skip
    return pa.schema(
        {
            "iteration": whole, "environment": text, "scenario": text, "initial_state": text, "sample": whole,
            "population": text, "cue": text, "split": text, "seed": whole, "profile": text, "status": text,
            "reason": text, "state": text, "turns": whole, "mean_rating": number, "final_rating": number,
            "mean_veto": number, "unusable": whole, "failure": text, "detail": text,
            "messages": pa.list_(pa.struct(message)), "judgements": pa.list_(pa.struct(judgement)),
        }
    )  # fmt: skip


@contextmanager
def whole_file(out: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``out`` that takes its place when the block succeeds; InfluenceError otherwise.

    A link keeps pointing where it does, and what is no file (a pipe, a device) is written to as it is.
    """
    target = out.resolve()
    special = target.exists() and not target.is_file() and not target.is_dir()
    temporary = target if special else target.with_name(f".influence-{os.getpid()}.part")
    try:
        yield temporary
        if not special:
            sync_file(temporary)
            temporary.replace(target)
            sync_folder(target.parent)
    except OSError as error:
        raise file_error(error, out) from None
    finally:
        if not special:
            with suppress(OSError):
                temporary.unlink()
