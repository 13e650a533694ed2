"""Packed passes through a model on a processor, by kernels of our own.

Concept: a pass is laid down in tables that serve every layer: items, which are blocks of rows of one sequence, and the
pieces of segments that these read, in the order of positions. A decoder of the usual kind goes through all layers in one
call; else the model's own code calls our attention layer by layer. Invariants: a decoder has been seen to compute what
the model's code does, with each adapter anew; a pass's tables name memory that lives until it is done; what a row comes
to does not depend on the rows beside it, to the bit (``kernels.c``).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from influence_transformers.engine.attention import Plan, View
from influence_transformers.engine.forward import Layout, Model, apart
from influence_transformers.engine.segments import Aside, CacheShape, Pool, Segment
from influence_transformers.engine.tables import MANY, Table, mask_words
from influence_transformers.native.decoder import NativeDecoder, UnlikeError
from influence_transformers.native.library import LOG2_E, CAttention, Library, library

_log = logging.getLogger(__name__)
_TRIED = 11
"""Rows by which a decoder is tried."""
_FAR = 1 << 16
"""The context of a model that does not say how long it may be."""
_APART = 1e-3
_WIDEST = 256
_GRAIN = 16


def unserved(shape: CacheShape, heads: set[int]) -> str:
    """Return why the kernels do not serve a model with such a cache and such numbers of query heads; nothing if they do."""
    kind = shape.uniform
    if shape.device.type != "cpu" or shape.dtype != torch.float32:
        return f"they are not for {shape.dtype} on {shape.device.type}"
    if kind is None or len(heads) != 1:
        return "the layers are not alike"
    repeat, rest = divmod(next(iter(heads)), kind.heads)
    if rest or repeat > MANY or kind.key_dim % _GRAIN or kind.key_dim > _WIDEST:
        return f"{next(iter(heads))} heads of width {kind.key_dim} over {kind.heads} do not fit"
    return ""


class Room:
    """Memory that passes use one after the other, grown as they need it."""

    def __init__(self, shape: CacheShape) -> None:
        self.aside = Aside(shape)
        self._parts: dict[str, torch.Tensor] = {}

    def address(self, name: str, numbers: int) -> int:
        """Return where so many float32 can be put under a name; what lay there is lost when it has to grow."""
        if name not in self._parts or self._parts[name].numel() < numbers:
            self._parts[name] = torch.empty(numbers, dtype=torch.float32)
        return self._parts[name].data_ptr()

    def clear(self) -> None:
        """Give the memory back."""
        self._parts.clear()
        self.aside.clear()


@dataclass
class ViewTables:
    """One pass's rows: ``items`` and ``pieces`` as ``kernels.c`` names them, where each row goes, and masks."""

    repeat: int
    places: list[Table] = field(default_factory=list)
    items: list[tuple[int, ...]] = field(default_factory=list)
    pieces: list[tuple[int, ...]] = field(default_factory=list)
    masks: list[Table] = field(default_factory=list)
    words: int = 0
    rows_aside: int = 0

    def add(self, view: View, aside: Segment | None) -> None:
        """Add some rows of a sequence, which follow those that were added before; those with a mask lie in ``aside``."""
        count, first = view.stop - view.start, len(self.pieces)
        self.pieces += [(s.segment.address, s.segment.capacity, s.start, s.stop) for s in view.above]
        own = (view.segment.address, view.segment.capacity, 0)
        if view.mask is None:
            self.pieces.append((*own, view.at + count))
            place, at, limit, step, words = view.segment, view.at, view.at + 1, 1, 0
        else:
            assert aside is not None
            place, at, step = aside, self.rows_aside, 0
            limit = self.rows_aside = at + count
            self.pieces += [(*own, view.at), (aside.address, aside.capacity, at, limit)]
            bits = mask_words(view.mask.numpy())
            self.masks.append(bits.reshape(-1))
            words = bits.shape[1]
        placed = np.empty((count, 3), np.int64)
        placed[:, 0], placed[:, 1], placed[:, 2] = place.address, place.capacity, np.arange(at, at + count)
        self.places.append(placed)
        block = MANY // self.repeat
        for row in range(0, count, block):
            rows, mask = min(block, count - row), self.words + row * words
            self.items.append(
                (view.start + row, rows, first, len(self.pieces), limit + step * row, step, mask, words)
            )  # fmt: skip
        self.words += count * words


class NativeAttention:
    """One pass, ready for every layer; ``described`` is what kernels are called with."""

    def __init__(self, kernels: Library, shape: CacheShape, heads: int, plan: Plan, room: Room) -> None:
        kind = shape.uniform
        assert kind is not None
        self._library, self._places, self._width = kernels, shape.places, kind.key_dim
        masked = sum(view.stop - view.start for view in plan.views if view.mask is not None)
        aside = room.aside.segment(masked) if masked else None
        tables = ViewTables(heads // kind.heads)
        for view in plan.views:
            tables.add(view, aside)
        arrays = (
            np.concatenate(tables.places),
            np.array(tables.items, np.int64),
            np.array(tables.pieces, np.int64),
            np.concatenate(tables.masks) if masked else np.zeros(1, np.int64),
        )
        self._kept = arrays, aside, room
        self.described = CAttention(
            None, None, None, None, *(array.ctypes.data for array in arrays),
            plan.rows, len(tables.items), kind.heads, heads // kind.heads,
        )  # fmt: skip

    def attend(self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float) -> torch.Tensor:
        """Return a layer's attention, rows x heads x width, having written the rows' keys and values."""
        rows, heads = self.described.rows, self.described.heads
        shapes = [tuple(t.shape) for t in (q, k, v)]
        of_keys = (rows, heads, self._width)
        if shapes != [(rows, heads * self.described.repeat, self._width), of_keys, of_keys]:
            raise RuntimeError(f"attention of {rows} rows was given {shapes}")
        if any(t.dtype != torch.float32 for t in (q, k, v)):
            raise RuntimeError("attention in float32 was given other numbers")
        q, k, v = (t if t.stride(-1) == 1 else t.contiguous() for t in (q, k, v))
        summed = torch.empty((len(q), q.shape[1], v.shape[2]), dtype=torch.float32)
        to = self.described
        to.q, to.k, to.v, to.summed = q.data_ptr(), k.data_ptr(), v.data_ptr(), summed.data_ptr()
        (to.q_row, to.q_head), (to.k_row, to.k_head), (to.v_row, to.v_head) = (t.stride()[:2] for t in (q, k, v))
        to.layer, to.scale = self._places[layer], scale * LOG2_E
        self._library.attend(to)
        return summed


class NativeRunner:
    """Sends packed passes through a model; ``heads`` is its number of query heads, ``context`` its most positions.

    Raises CompileError, or UnlikeError where ``whole`` layers cannot be computed.
    """

    def __init__(self, model: Any, shape: CacheShape, heads: int, context: int | None, *, whole: bool) -> None:
        kind = shape.uniform
        assert kind is not None
        self._shape, self._heads = shape, heads
        self._last = max(_TRIED, context or _FAR) - _TRIED
        self._library = library(kind.key_dim)
        self._room = Room(shape)
        self._model, self._calling = model, Model(model)
        self._decoders: dict[str | None, NativeDecoder | None] = {}
        self.whole = whole
        if whole:
            self._decoders[None] = self._decoder()

    def logits(self, layout: Layout, adapter: str | None = None) -> torch.Tensor:
        """Return float32 logits, wanted rows x vocabulary, having written the pass's keys and values.

        ``adapter`` names what the model computes with at present.
        """
        numbers = (layout.tokens, layout.positions, layout.logit_rows)
        tokens, positions, wanted = (torch.tensor(each, dtype=torch.long) for each in numbers)
        with torch.inference_mode():
            attention = NativeAttention(self._library, self._shape, self._heads, layout.plan, self._room)
            decoder = self._decoder_with(adapter) if self.whole else None
            if decoder is None:
                return self._calling.logits(attention, tokens, positions, wanted)
            return decoder.logits(attention.described, tokens, positions, wanted, self._room.address)

    def _decoder_with(self, adapter: str | None) -> NativeDecoder | None:
        """Return the decoder with an adapter, which is switched on; None for one that it cannot compute with."""
        if adapter not in self._decoders:
            try:
                self._decoders[adapter] = self._decoder()
            except (UnlikeError, AttributeError) as error:
                _log.info("Layers with the adapter %s are computed one operator after the other: %s", adapter, error)
                self._decoders[adapter] = None
        return self._decoders[adapter]

    def _decoder(self) -> NativeDecoder:
        """Return a decoder of the model as it is at present; UnlikeError unless it computes what the model's code does.

        That is tried at the first positions and at the last ones, where some models' attention differs.
        """
        decoder = NativeDecoder(self._model, self._shape, self._heads, self._library)
        segment = Pool(self._shape, 0).segment(_TRIED)
        plan = Plan(rows=_TRIED, views=[View(0, _TRIED, (), segment, 0, None)])
        tokens = torch.arange(7, 7 + _TRIED)
        wanted = torch.arange(_TRIED)
        for first in (0, self._last):
            positions = torch.arange(first, first + _TRIED)
            attention = NativeAttention(self._library, self._shape, self._heads, plan, self._room)
            with torch.inference_mode():
                own = self._calling.logits(attention, tokens, positions, wanted)
                ours = decoder.logits(attention.described, tokens, positions, wanted, self._room.address)
            difference = apart(own, ours)
            if not difference < _APART:
                raise UnlikeError(f"logits differ by {difference:.2g} standard deviations at position {first}")
        return decoder

    def release(self) -> None:
        """Give back what is kept between passes, since memory ran out."""
        self._room.clear()
