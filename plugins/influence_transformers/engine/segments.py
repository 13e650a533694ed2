"""Memory for keys and values.

Concept: a :class:`Segment` holds keys and values of consecutive positions for all layers, in one allocation per segment
that grows by reallocation; a :class:`Span` is a part of it. Invariant: positions below ``length`` are never written
again, so any number of readers may hold spans of a segment while its one writer appends; ``Pool.used`` is the number
of bytes of all living segments.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch

_GRAIN = 32
"""Capacities are multiples of this many positions, so that growing is rare."""


Layers = tuple[torch.Tensor, ...]
"""One tensor a layer, by the layer's place."""


class LayerShape(NamedTuple):
    """How one layer's keys and values look for one position."""

    heads: int
    key_dim: int
    value_dim: int


@dataclass(frozen=True)
class CacheShape:
    """How keys and values of one position look in all layers, by the model's own layer index."""

    layers: dict[int, LayerShape]
    dtype: torch.dtype
    device: torch.device

    @property
    def elements(self) -> int:
        """Numbers kept for one position."""
        return sum(s.heads * (s.key_dim + s.value_dim) for s in self.layers.values())

    @cached_property
    def places(self) -> dict[int, int]:
        """The place of each layer among them all."""
        return {layer: place for place, layer in enumerate(self.layers)}

    @cached_property
    def uniform(self) -> LayerShape | None:
        """The shape of every layer, if they are alike and keys are as wide as values."""
        kinds = set(self.layers.values())
        kind = next(iter(kinds))
        return kind if len(kinds) == 1 and kind.key_dim == kind.value_dim else None

    @property
    def token_bytes(self) -> int:
        """Bytes kept for one position."""
        return self.elements * self.dtype.itemsize


class Pool:
    """The byte account of all segments of one engine; ``budget`` is what it should stay under."""

    def __init__(self, shape: CacheShape, budget: int) -> None:
        self.shape = shape
        self.budget = budget
        self.used = 0
        self.peak = 0

    def bytes_for(self, positions: int) -> int:
        """Return the bytes that a segment for so many positions takes."""
        return _rounded(positions) * self.shape.token_bytes

    def segment(self, capacity: int) -> Segment:
        """Return an empty segment with room for at least ``capacity`` positions."""
        return Segment(self, _rounded(capacity))


class Segment:
    """Keys and values of consecutive positions; appended to by one writer, read by many.

    ``keys`` and ``values`` hold for each layer heads x positions x width: kernels read a head's positions in a row, which
    was seen to be twice as fast as positions x heads x width.
    """

    __slots__ = ("_whole", "capacity", "keys", "length", "pool", "values")

    def __init__(self, pool: Pool, capacity: int) -> None:
        self.pool = pool
        self.length = 0
        self.capacity = 0
        self._whole: torch.Tensor | None = None
        self.keys: dict[int, torch.Tensor] = {}
        self.values: dict[int, torch.Tensor] = {}
        self._allocate(capacity)

    def __del__(self) -> None:
        self.pool.used -= self.capacity * self.pool.shape.token_bytes

    def reserve(self, capacity: int) -> None:
        """Make room for ``capacity`` positions in all, keeping what is there."""
        if capacity > self.capacity:
            self._allocate(_rounded(max(capacity, self.capacity + self.capacity // 4)))

    @property
    def address(self) -> int:
        """Where the memory begins that holds layers x 2 x heads x positions x width, if layers are alike."""
        assert self._whole is not None
        return self._whole.data_ptr()

    def by_layer(self, start: int, stop: int) -> tuple[Layers, Layers]:
        """Return keys and values of positions ``start`` to ``stop``: for each layer's place, heads x 1 x positions x width.

        Made for all layers at once, since a view made in Python costs as much as a small sum.
        """
        if self._whole is not None:
            part = self._whole[:, :, :, start:stop].unsqueeze(3)
            return part[:, 0].unbind(0), part[:, 1].unbind(0)
        keys = tuple(k[:, start:stop].unsqueeze(1) for k in self.keys.values())
        return keys, tuple(v[:, start:stop].unsqueeze(1) for v in self.values.values())

    def copy_from(self, source: Segment, start: int, stop: int) -> None:
        """Append positions ``start`` to ``stop`` of another segment."""
        count = stop - start
        self.reserve(self.length + count)
        into = slice(self.length, self.length + count)
        if self._whole is not None and source._whole is not None:
            self._whole[:, :, :, into] = source._whole[:, :, :, start:stop]
        else:
            for layer in self.keys:
                self.keys[layer][:, into] = source.keys[layer][:, start:stop]
                self.values[layer][:, into] = source.values[layer][:, start:stop]
        self.length += count

    def _allocate(self, capacity: int) -> None:
        shape = self.pool.shape
        flat = _memory(capacity * shape.elements, shape)
        kind = shape.uniform
        if kind is not None:
            self._take_uniform(flat.view(len(shape.layers), 2, kind.heads, capacity, kind.key_dim))
        else:
            self._take(flat, capacity)
        self.pool.used += (capacity - self.capacity) * shape.token_bytes
        self.pool.peak = max(self.pool.peak, self.pool.used)
        self.capacity = capacity

    def _take_uniform(self, whole: torch.Tensor) -> None:
        """Go over to fresh memory for all layers alike (layers x 2 x heads x positions x width) in one copy."""
        if self.length:
            assert self._whole is not None
            whole[:, :, :, : self.length] = self._whole[:, :, :, : self.length]
        self._whole = whole
        layers = self.pool.shape.layers
        self.keys = dict(zip(layers, whole[:, 0].unbind(0), strict=True))
        self.values = dict(zip(layers, whole[:, 1].unbind(0), strict=True))

    def _take(self, flat: torch.Tensor, capacity: int) -> None:
        """Go over to fresh memory, the layers one after the other."""
        offset = 0
        for layer, (heads, key_dim, value_dim) in self.pool.shape.layers.items():
            for store, width in ((self.keys, key_dim), (self.values, value_dim)):
                size = capacity * heads * width
                fresh = flat[offset : offset + size].view(heads, capacity, width)
                if self.length:
                    fresh[:, : self.length] = store[layer][:, : self.length]
                store[layer] = fresh
                offset += size


class Aside:
    """Where rows that are written to no sequence's segment go for the length of a pass."""

    def __init__(self, shape: CacheShape) -> None:
        self._shape = shape
        self._segment: Segment | None = None

    def segment(self, rows: int) -> Segment:
        """Return a segment with room for so many rows, kept for the next pass."""
        if self._segment is None or self._segment.capacity < rows:
            self._segment = Pool(self._shape, 0).segment(rows)  # no budget counts it: it holds nothing between passes
        return self._segment

    def clear(self) -> None:
        """Give the memory back."""
        self._segment = None


class Span(NamedTuple):
    """Positions ``start`` to ``stop`` of a segment."""

    segment: Segment
    start: int
    stop: int


def _memory(elements: int, shape: CacheShape) -> torch.Tensor:
    """Return room for so many numbers; on a CPU straight from the system, which has it back as soon as it is let go.

    The allocator of the C library would keep what is freed in pieces: half as much memory again was seen.
    """
    if shape.device.type != "cpu":
        return torch.empty(elements, dtype=shape.dtype, device=shape.device)
    return torch.frombuffer(mmap.mmap(-1, elements * shape.dtype.itemsize), dtype=shape.dtype)


def _rounded(positions: int) -> int:
    return max(_GRAIN, -(-positions // _GRAIN) * _GRAIN)
