"""The head of a GGUF file, read within bounds before anything else looks at the file.

Concept: the file says how long its texts and lists are, how many layers it has and how wide they are; whoever believes it
allocates what it says. Invariant: what :func:`read_head` lets pass says nothing that the file's own size does not bear out.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from influence_cli.api import InfluenceError

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_TEXT, _LIST = 8, 9
_MOST_FIELDS = 4096
_MOST_TENSORS = 65_536
_MOST_HEAD = 256 * 2**20
_MOST_CONTEXT = 2**24
_WIDTHS = ("embedding_length", "feed_forward_length", "vocab_size", "expert_count", "expert_feed_forward_length")


@dataclass(frozen=True)
class Head:
    """What a file says of itself; ``metadata`` holds plain values, lists only by their lengths."""

    metadata: Mapping[str, Any]
    tensors: Mapping[str, tuple[int, ...]]

    @property
    def elements(self) -> int:
        """Numbers in all tensors together."""
        return sum(math.prod(shape) for shape in self.tensors.values())


class _Broken(Exception):  # noqa: N818 - never leaves this module
    """What the file says cannot be."""


class _Cursor:
    """Reads from a file what is there, and no more."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._size = min(size, _MOST_HEAD)
        self.at = 0

    @property
    def left(self) -> int:
        return self._size - self.at

    def take(self, count: int) -> bytes:
        if count > self.left:
            raise _Broken("it says that it is longer than it is")
        self.at += count
        return self._file.read(count)

    def skip(self, count: int) -> None:
        if count > self.left:
            raise _Broken("it says that it is longer than it is")
        self.at += count
        self._file.seek(count, 1)

    def number(self, form: str) -> Any:
        form = f"<{form}"
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def text(self) -> str:
        try:
            return self.take(self.number("Q")).decode()
        except UnicodeDecodeError:
            raise _Broken("a name in it is not UTF-8") from None

    def value(self) -> Any:
        """Return a value; of a list, how many entries it has."""
        kind = self.number("I")
        if kind == _TEXT:
            return self.text()
        if kind != _LIST:
            return self.number(self._form(kind))
        kind, count = self.number("I"), self.number("Q")
        if kind == _TEXT:
            if count * 8 > self.left:
                raise _Broken("a list in it is longer than the file")
            for _ in range(count):
                self.skip(self.number("Q"))
        else:
            self.skip(count * struct.calcsize(f"<{self._form(kind)}"))
        return range(count)

    @staticmethod
    def _form(kind: int) -> str:
        if kind not in _SCALARS:
            raise _Broken(f"it holds a value of unknown kind {kind}")
        return _SCALARS[kind]


def read_head(path: Path) -> Head:
    """Return what a GGUF file says of itself; InfluenceError if it is none, or says what its size does not bear out."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            return _head(_Cursor(file, size), size)
    except OSError as error:
        raise InfluenceError(f"The file {path} cannot be read: {error.strerror or error}.") from None
    except _Broken as error:
        raise InfluenceError(f"The file {path} cannot be read as a GGUF model: {error}.") from None


def _head(cursor: _Cursor, size: int) -> Head:
    if cursor.take(min(4, cursor.left)) != _MAGIC:
        raise _Broken("it does not begin as one")
    version = cursor.number("I")
    if version not in _VERSIONS:
        raise _Broken(f"it is of version {version}; known are {' and '.join(map(str, _VERSIONS))}")
    count, fields = cursor.number("Q"), cursor.number("Q")
    if count > _MOST_TENSORS or fields > _MOST_FIELDS:
        raise _Broken(f"it says that it holds {count} tensors and {fields} fields")
    metadata: dict[str, Any] = {}
    for _ in range(fields):
        name = cursor.text()
        if name in metadata:
            raise _Broken(f"the field {name[:60]!r} stands in it twice")
        metadata[name] = cursor.value()
    found = [_tensor(cursor) for _ in range(count)]
    start = _aligned(cursor.at, metadata.get("general.alignment", 32))
    tensors: dict[str, tuple[int, ...]] = {}
    for name, shape, length, offset in found:
        if name in tensors:
            raise _Broken(f"the tensor {name[:60]!r} stands in it twice")
        if start + offset + length > size:
            raise _Broken(f"the tensor {name[:60]!r} is longer than the file")
        tensors[name] = shape
    head = Head(metadata, tensors)
    _check_sizes(head)
    return head


def _tensor(cursor: _Cursor) -> tuple[str, tuple[int, ...], int, int]:
    """Return name, shape, length in bytes and offset of a tensor."""
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

    name, dimensions = cursor.text(), cursor.number("I")
    if not 1 <= dimensions <= 4:
        raise _Broken(f"the tensor {name[:60]!r} has {dimensions} dimensions")
    shape = tuple(cursor.number("Q") for _ in range(dimensions))
    kind, offset = cursor.number("I"), cursor.number("Q")
    if kind not in {int(known) for known in GGML_QUANT_SIZES}:
        raise _Broken(f"the tensor {name[:60]!r} is of unknown kind {kind}")
    block, width = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
    return name, shape, -(-math.prod(shape) // block) * width, offset


def _aligned(at: int, alignment: Any) -> int:
    if not isinstance(alignment, int) or isinstance(alignment, bool) or not 1 <= alignment <= 2**16:
        raise _Broken("its alignment is none")
    if alignment & (alignment - 1):
        raise _Broken("its alignment is no power of two")
    return -(-at // alignment) * alignment


def _check_sizes(head: Head) -> None:
    """Raise for layers and widths that no tensor of the file has: a model would be made as large as they say."""
    widest = max((side for shape in head.tensors.values() for side in shape), default=0)
    for name, value in head.metadata.items():
        last = name.rpartition(".")[2]
        if not isinstance(value, int) or isinstance(value, bool):
            continue
        if last == "block_count" and not 0 <= value <= len(head.tensors):
            raise _Broken(f"it says that it has {value} layers, with {len(head.tensors)} tensors")
        if last in _WIDTHS and not 0 <= value <= widest:
            raise _Broken(f"it says {name[:60]} = {value}, and no tensor is that wide")
        if last == "context_length" and not 0 <= value <= _MOST_CONTEXT:
            raise _Broken(f"it says that its context has {value} tokens")
