"""Tables in a pickle, read without running anything that the pickle names.

A pickle is a program: it names callables and calls them. Here every name on a short list stands for an inert record of what
it would have been called with, any other name ends the reading, and the table is then put together from the records by
this module. Neither pandas nor any reconstructor of numpy is ever called; numpy only reads the bytes of plain numbers.

Bounds, checked by a pass over the opcodes before anything is loaded: the file's size, the number of opcodes, memo indices
(an index alone can make the unpickler allocate gigabytes), sizes of single values, and how deep tuples stand in each other
(as a key, a deep one overruns the stack of the interpreter and ends the process).
"""

from __future__ import annotations

import io
import pickle
import pickletools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from influence_cli.errors import InfluenceError
from influence_cli.store.connection import file_error
from influence_cli.store.imports.frames import Record, frame_rows
from influence_cli.store.imports.opcodes import TupleDepths

MOST_BYTES = 512 * 2**20
MOST_OPCODES = 50_000_000
MOST_DEPTH = 100

ALLOWED = {
    ("pandas.core.frame", "DataFrame"): "the table itself",
    ("pandas", "DataFrame"): "the table itself, as pandas 3 calls it",
    ("pandas.core.internals.managers", "BlockManager"): "holds a table's columns, grouped by type",
    ("pandas.core.internals", "BlockManager"): "the same, in older versions",
    ("pandas._libs.internals", "_unpickle_block"): "one group of columns",
    ("pandas.core.internals.blocks", "new_block"): "one group of columns, in pandas 1.2",
    ("pandas.core.indexes.base", "_new_Index"): "names of columns and rows",
    ("pandas.core.indexes.base", "Index"): "the kind of these names",
    ("pandas", "Index"): "the same, as pandas 3 calls it",
    ("pandas.core.indexes.range", "RangeIndex"): "rows numbered one after another",
    ("pandas", "RangeIndex"): "the same, as pandas 3 calls it",
    ("pandas.core.indexes.numeric", "Int64Index"): "rows with numbers, before pandas 2",
    ("numpy", "ndarray"): "an array",
    ("numpy", "dtype"): "the type of an array's entries",
    ("numpy.core.multiarray", "_reconstruct"): "an array, before numpy 2",
    ("numpy._core.multiarray", "_reconstruct"): "an array",
    ("numpy.core.numeric", "_frombuffer"): "an array of protocol 5, before numpy 2",
    ("numpy._core.numeric", "_frombuffer"): "an array of protocol 5",
    ("numpy.core.multiarray", "scalar"): "one number, before numpy 2",
    ("numpy._core.multiarray", "scalar"): "one number",
    ("_codecs", "encode"): "bytes, in protocols before 3",
    ("builtins", "slice"): "which columns a group holds",
    ("__builtin__", "slice"): "the same, in protocols before 3",
    ("builtins", "bytearray"): "the bytes of an array of protocol 5",
}
"""Every name that a pickled table may hold, and what for."""

_REFUSED = {
    "EXT1": "an extension code", "EXT2": "an extension code", "EXT4": "an extension code",
    "PERSID": "an object outside the file", "BINPERSID": "an object outside the file",
    "NEXT_BUFFER": "a buffer outside the file", "READONLY_BUFFER": "a buffer outside the file",
}  # fmt: skip
_MEMO = {"PUT", "BINPUT", "LONG_BINPUT", "GET", "BINGET", "LONG_BINGET"}


class _Reader(pickle.Unpickler):
    """An unpickler to which every name is an inert record, or refused."""

    def __init__(self, file: io.BytesIO, path: Path) -> None:
        super().__init__(file)
        self._path = path
        self._kinds: dict[str, type[Record]] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise _refused(self._path, f"{module}.{name}")
        full = f"{module}.{name}"
        return self._kinds.setdefault(full, type("Kind", (Record,), {"__slots__": (), "kind": full}))

    def persistent_load(self, _identifier: Any) -> Any:
        raise _refused(self._path, "an object outside the file")


def read_pickle(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a pickled table or list of objects; InfluenceError for anything else, naming what was refused."""
    data = _bytes(path)
    _check(data, path)
    try:
        loaded = _Reader(io.BytesIO(data), path).load()
    except InfluenceError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever a broken pickle makes the unpickler raise
        raise InfluenceError(f"{path} is no whole pickle: {type(error).__name__}.") from None
    del data
    try:
        yield from frame_rows(loaded)
    except (ValueError, TypeError, LookupError, RecursionError, OverflowError, MemoryError) as error:
        told = str(error).split("\n", 1)[0][:120]
        raise InfluenceError(
            f"{path} holds no table that can be read here: {told}.", hint="Have its owner write it as Parquet."
        ) from None


def _bytes(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise InfluenceError(
                f"{path} is larger than {MOST_BYTES // 2**20} MiB.", hint="Have its owner write it as Parquet."
            )
        return path.read_bytes()
    except OSError as error:
        raise file_error(error, path) from None


def _check(data: bytes, path: Path) -> None:
    """Raise InfluenceError for what must not be loaded; nothing is built here."""
    depths = TupleDepths()
    count = 0
    try:
        for opcode, argument, _ in pickletools.genops(data):
            count += 1
            name = opcode.name
            if name in _REFUSED:
                raise _refused(path, _REFUSED[name])
            if name in ("GLOBAL", "INST"):
                module, _, rest = str(argument).partition(" ")
                if (module, rest) not in ALLOWED:
                    raise _refused(path, f"{module}.{rest}")
            elif name in _MEMO and isinstance(argument, int) and not 0 <= argument <= count:
                raise _refused(path, "a memo index that is out of bounds")
            if depths.deepest(opcode, argument) > MOST_DEPTH:
                raise _refused(path, f"more than {MOST_DEPTH} tuples in each other")
            if count > MOST_OPCODES:
                raise _refused(path, f"more than {MOST_OPCODES:,} instructions")
    except InfluenceError:
        raise
    except Exception as error:  # noqa: BLE001 - pickletools raises whatever its parsers meet in broken data
        raise InfluenceError(f"{path} is no pickle: {str(error)[:100]}.") from None


def _refused(path: Path, what: str) -> InfluenceError:
    shown = "".join(letter if letter.isprintable() else "?" for letter in what)[:100]
    return InfluenceError(
        f"{path} is refused: it holds {shown}, which no table needs.", hint="Have its owner write it as Parquet."
    )
