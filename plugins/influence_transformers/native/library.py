"""The compiled kernels (``kernels.c``), and the structures that they are called with."""

from __future__ import annotations

import ctypes
import re
from ctypes import POINTER, Structure, c_float, c_int64, c_uint, c_void_p
from functools import cache
from pathlib import Path

import torch

from influence_transformers.engine.tables import MANY, WORD
from influence_transformers.native.compiling import CompileError, compiled

ANY_WIDTH = 64
"""The width of a head that the kernels are compiled for where none is asked for, as for products."""
LOG2_E = 1.4426950408889634
_MAPS = Path("/proc/self/maps")
_OPENMP = re.compile(r"lib(gomp|omp|iomp5)\b")


class CLinear(Structure):
    """A layer's weight in panels, its bias, and two weights of an adapter; ``half``: whether it is kept as bfloat16."""


CLinear._fields_ = (
    ("panels", c_void_p), ("bias", c_void_p), ("lower", POINTER(CLinear)), ("raised", POINTER(CLinear)),
    ("depth", c_int64), ("width", c_int64), ("half", c_int64),
)  # fmt: skip


class CProduct(Structure):
    """Rows times the weights of layers that read the same rows and write side by side, or are added to what is there."""

    _fields_ = (
        ("layers", POINTER(CLinear)), ("count", c_int64), ("input", c_void_p), ("out", c_void_p), ("between", c_void_p),
        *((name, c_int64) for name in ("rows", "in_row", "out_row", "add", "next")),
    )  # fmt: skip


class CAttention(Structure):
    """What a layer's attention reads and writes, by the tables that :mod:`influence_transformers.native.passes` makes."""

    _fields_ = (
        *((name, c_void_p) for name in ("q", "k", "v", "summed", "places", "items", "pieces", "masks")),
        *((name, c_int64) for name in ("rows", "count", "heads", "repeat", "layer")),
        *((name, c_int64) for name in ("q_row", "q_head", "k_row", "k_head", "v_row", "v_head", "next")),
        ("scale", c_float),
    )


class CLayer(Structure):
    """A layer of a decoder: its two norms' weights, and its linear layers."""

    _fields_ = (
        ("before", c_void_p), ("after", c_void_p),
        *((name, POINTER(CLinear)) for name in ("qkv", "output", "gate_up", "down")),
    )  # fmt: skip


class CDecoder(Structure):
    """All layers, and the rows that go through them."""

    _fields_ = (
        ("layers", POINTER(CLayer)), ("count", c_int64), ("hidden", c_int64), ("inner", c_int64),
        ("eps", c_float), ("scale", c_float),
        *((name, c_void_p) for name in ("x", "h", "t", "between", "cosines", "sines")),
        ("attention", POINTER(CAttention)), ("wanted", c_void_p), ("wanted_count", c_int64),
        ("last", c_void_p), ("weight", c_void_p), ("next", c_int64),
    )  # fmt: skip


class Library:
    """The kernels for one width of a head; they run on as many threads as torch uses, which are torch's own.

    Raises CompileError, also where torch's threads cannot be had.
    """

    def __init__(self, width: int) -> None:
        settings = {"WIDTH": width, "MANY": MANY, "WORD": WORD}
        self._library = compiled(Path(__file__).with_name("kernels.c"), settings)
        self._team = _team()
        if self._team is None and torch.get_num_threads() > 1:
            raise CompileError("the threads of this build of torch cannot be had")
        for name in ("multiply", "attend", "decode"):
            function = getattr(self._library, name)
            function.argtypes, function.restype = (c_void_p, c_void_p, c_uint), None
        self._library.panel_width.restype = self._library.sizes.restype = c_int64
        self.panel: int = self._library.panel_width()
        sizes = (ctypes.sizeof(kind) for kind in (CLinear, CProduct, CAttention, CLayer, CDecoder))
        if self._library.sizes() != sum(size * 1000**n for n, size in enumerate(sizes)):
            raise CompileError("this compiler lays structures out in another way than Python expects")

    def multiply(self, product: CProduct) -> None:
        """Compute a product."""
        self._library.multiply(ctypes.addressof(product), self._team, torch.get_num_threads())

    def attend(self, attention: CAttention) -> None:
        """Write the rows' keys and values to the cache, and their attention to ``summed``."""
        self._library.attend(ctypes.addressof(attention), self._team, torch.get_num_threads())

    def decode(self, decoder: CDecoder) -> None:
        """Send the rows at ``x`` through all layers, in place; what the last norm makes of the wanted ones goes to ``h``."""
        self._library.decode(ctypes.addressof(decoder), self._team, torch.get_num_threads())


@cache
def _tried(width: int) -> Library | CompileError:
    try:
        return Library(width)
    except CompileError as error:
        return error


def library(width: int = ANY_WIDTH) -> Library:
    """Return the kernels for heads of a width, a multiple of 16, made once; raises CompileError."""
    found = _tried(width)
    if isinstance(found, CompileError):
        raise found
    return found


def _team() -> int | None:
    """Return the address at which torch's OpenMP runs work on its team of threads; None where it has no such function.

    A second OpenMP's threads would wait in turn for the same processors as torch's.
    """
    for path in _loaded():
        try:
            run = ctypes.CDLL(str(path)).GOMP_parallel
        except (OSError, AttributeError):
            continue
        return ctypes.cast(run, c_void_p).value
    return None


def _loaded() -> list[Path]:
    """Return the files of OpenMP that this process has loaded, torch's own first."""
    home = Path(torch.__file__).parent
    try:
        lines = _MAPS.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return sorted((home / "lib").glob("lib*omp*"))
    mapped = {Path(line.split(maxsplit=5)[5]) for line in lines if line.count("/")}
    found = sorted(path for path in mapped if _OPENMP.match(path.name))
    return sorted(found, key=lambda path: not path.is_relative_to(home) and path.parent.name != "torch.libs")
