"""Putting a pandas table together from inert records of its pickle."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

MOST_CELLS = 50_000_000
_DEEPEST = 60
_MOST_NODES = 20_000_000
_NUMBERS = re.compile(r"[|<>=]?[iufb][1248]?")


class Record:
    """What a name of a pickle would have been called with, and what state it would have been given."""

    __slots__ = ("arguments", "state")
    kind = ""
    arguments: tuple[Any, ...]
    state: Any

    def __new__(cls, *arguments: Any, **_named: Any) -> Record:
        """Keep the arguments."""
        made = object.__new__(cls)
        made.arguments = arguments
        made.state = None
        return made

    def __setstate__(self, state: Any) -> None:
        """Keep the state."""
        self.state = state

    def is_a(self, *names: str) -> bool:
        """Return whether it stands for one of ``names``, whatever the module."""
        return self.kind.rpartition(".")[2] in names


def frame_rows(loaded: Any) -> Iterator[dict[str, Any]]:
    """Yield the rows of a pickled table, or the objects of a list; ValueError for anything else."""
    if isinstance(loaded, list):
        budget = [_MOST_NODES]
        for row in loaded:
            if not isinstance(row, dict):
                raise TypeError("the list holds something that is no row")
            yield {str(name): _plain(value, budget) for name, value in row.items()}
        return
    if not isinstance(loaded, Record) or not loaded.is_a("DataFrame"):
        raise ValueError("it is neither a table nor a list of rows")
    names, columns = _columns(_manager(loaded))
    rows = len(columns[0]) if columns else 0
    budget = [_MOST_NODES]
    for index in range(rows):
        yield {name: _plain(column[index], budget) for name, column in zip(names, columns, strict=True)}


def _manager(frame: Record) -> Record:
    state = frame.state
    found = (state.get("_mgr") or state.get("_data")) if isinstance(state, dict) else None
    if not isinstance(found, Record) or not found.is_a("BlockManager"):
        raise ValueError("the table has no columns")
    return found


def _columns(manager: Record) -> tuple[list[str], list[Sequence[Any]]]:
    """Return names and columns of a block manager, in its newer form (arguments) or its older one (state)."""
    if len(manager.arguments) >= 2:
        blocks, axes = manager.arguments[:2]
        pairs = [_block(block) for block in blocks]
    else:
        older = manager.state[3]["0.14.1"]
        axes = older["axes"]
        pairs = [(block["values"], block["mgr_locs"]) for block in older["blocks"]]
    names = [str(name) for name in _index(axes[0])]
    columns: list[Sequence[Any] | None] = [None] * len(names)
    for values, places in pairs:
        matrix, shape = _matrix(values)
        positions = _positions(places, len(names))
        if len(positions) != shape[0]:
            raise ValueError("a group of columns does not fit its names")
        for row, position in enumerate(positions):
            columns[position] = matrix[row]
    if any(column is None for column in columns) or len({len(column) for column in columns if column is not None}) > 1:
        raise ValueError("columns are missing or differ in length")
    return names, [column for column in columns if column is not None]


def _block(block: Any) -> tuple[Any, Any]:
    if isinstance(block, Record) and block.is_a("_unpickle_block", "new_block"):
        return block.arguments[0], block.arguments[1]
    raise ValueError("a group of columns is in an unknown form")


def _positions(places: Any, count: int) -> list[int]:
    if isinstance(places, Record) and places.is_a("slice"):
        if not all(part is None or isinstance(part, int) for part in places.arguments):
            raise ValueError("a slice without numbers")
        return list(range(count))[slice(*places.arguments)]
    found, _ = _array(places)
    positions = [int(place) for place in found]
    if any(not 0 <= place < count for place in positions):
        raise ValueError("a column that has no name")
    return positions


def _index(index: Any) -> list[Any]:
    """Return the names that an index holds."""
    if not isinstance(index, Record) or not index.is_a("_new_Index"):
        raise ValueError("names in an unknown form")
    _, facts = index.arguments
    if "data" in facts:
        return list(_array(facts["data"])[0])
    first, last, step = (int(facts[name]) for name in ("start", "stop", "step"))
    found = range(first, last, step)
    if len(found) > MOST_CELLS:
        raise ValueError("too many names")
    return list(found)


def _matrix(values: Any) -> tuple[list[Sequence[Any]], tuple[int, ...]]:
    """Return the rows of a two-dimensional array, each a column of the table."""
    flat, shape = _array(values)
    if len(shape) != 2:
        raise ValueError("a group of columns without two dimensions")
    width = shape[1]
    return [flat[start * width : (start + 1) * width] for start in range(shape[0])], shape


def _array(record: Any) -> tuple[Sequence[Any], tuple[int, ...]]:
    """Return an array's entries in C order, and its shape."""
    if not isinstance(record, Record):
        raise TypeError("an array in an unknown form")
    if record.is_a("_frombuffer"):
        raw, dtype, shape, order = record.arguments
        fortran = order == "F"
    elif record.is_a("_reconstruct"):
        _, shape, dtype, fortran, raw = record.state
    else:
        raise ValueError(f"an array made by {record.kind.rpartition('.')[2]}")
    sizes = tuple(int(size) for size in shape)
    cells = int(np.prod(sizes, dtype=object)) if sizes else 1
    if cells > MOST_CELLS or any(size < 0 for size in sizes):
        raise ValueError("an array of impossible size")
    entries = _entries(raw, _dtype(dtype), cells)
    if fortran and len(sizes) == 2:
        rows, columns = sizes
        entries = [entries[row + rows * column] for row in range(rows) for column in range(columns)]
    return entries, sizes


def _dtype(record: Any) -> str:
    if not isinstance(record, Record) or not record.is_a("dtype") or not record.arguments:
        raise ValueError("an array of unknown type")
    name = str(record.arguments[0])
    order = record.state[1] if isinstance(record.state, tuple) and len(record.state) > 1 else "="
    return f"{'>' if order == '>' else '<'}{name}" if name[0] in "iufb" else name


def _entries(raw: Any, dtype: str, cells: int) -> Sequence[Any]:
    if dtype in ("O", "O8"):
        if not isinstance(raw, list) or len(raw) != cells:
            raise ValueError("an array of objects without its objects")
        return raw
    if not _NUMBERS.fullmatch(dtype):
        raise ValueError(f"entries of type {dtype[:20]!r}")
    data = _raw(raw)
    kind = np.dtype(dtype)
    if len(data) != cells * kind.itemsize:
        raise ValueError("an array that is longer or shorter than it says")
    found: list[Any] = np.frombuffer(data, kind).tolist()
    return found


def _raw(raw: Any) -> bytes:
    if isinstance(raw, Record) and raw.is_a("encode"):
        text, encoding = raw.arguments
        if isinstance(text, str) and encoding == "latin1":
            return text.encode("latin1")
    if isinstance(raw, Record) and raw.is_a("bytearray") and len(raw.arguments) == 1:
        return _raw(raw.arguments[0])
    if isinstance(raw, bytes | bytearray):
        return bytes(raw)
    raise ValueError("an array without its bytes")


def _plain(value: Any, budget: list[int], depth: int = 0) -> Any:
    """Return a cell's value as plain objects; ValueError if it is too deep, too large or of another kind."""
    budget[0] -= 1
    if depth > _DEEPEST or budget[0] < 0:
        raise ValueError("values nested too deeply, or too many of them")
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, dict):
        return {str(name): _plain(entry, budget, depth + 1) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry, budget, depth + 1) for entry in value]
    if isinstance(value, Record) and value.is_a("scalar"):
        return _entries(value.arguments[1], _dtype(value.arguments[0]), 1)[0]
    if isinstance(value, Record) and value.is_a("_reconstruct", "_frombuffer"):
        return [_plain(entry, budget, depth + 1) for entry in _array(value)[0]]
    raise ValueError(f"a value of kind {getattr(value, 'kind', type(value).__name__)[:60]}")
