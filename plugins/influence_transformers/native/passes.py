"""Packed passes through a model on a processor, by kernels of our own.

Concept: as on a GPU a pass is laid down in tables (:mod:`influence_transformers.engine.tables`), which serve every layer.
A decoder of the usual kind goes through all layers in one call; else the model's own code calls our attention layer by
layer. Invariant: a pass's tables name memory that lives until it is done.
"""

from __future__ import annotations

import logging
from typing import Any

import torch

from influence_transformers.engine.forward import Layout, Model
from influence_transformers.engine.segments import CacheShape
from influence_transformers.engine.tables import COLUMNS, MANY, Maker, Tables
from influence_transformers.native.decoder import NativeDecoder, UnlikeError
from influence_transformers.native.library import LOG2_E, Attention, Library, library

_log = logging.getLogger(__name__)
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

    def __init__(self) -> None:
        self._parts: dict[str, torch.Tensor] = {}

    def address(self, name: str, numbers: int) -> int:
        """Return where so many float32 can be put under a name; what lay there is lost when it has to grow."""
        if name not in self._parts or self._parts[name].numel() < numbers:
            self._parts[name] = torch.empty(numbers)
        return self._parts[name].data_ptr()

    def clear(self) -> None:
        """Give the memory back."""
        self._parts.clear()


class NativeRunner:
    """Sends packed passes through a model; ``heads`` is its number of query heads.

    Raises CompileError, or UnlikeError where ``whole`` layers cannot be computed.
    """

    def __init__(self, model: Any, shape: CacheShape, heads: int, *, whole: bool) -> None:
        kind = shape.uniform
        assert kind is not None
        self._shape, self._kind, self._heads = shape, kind, heads
        self._library = library(kind.key_dim)
        self._maker = Maker(shape, heads // kind.heads, 0)
        self._room = Room()
        self._model, self._calling = model, Model(model)
        self._decoders: dict[str | None, NativeDecoder | None] = {}
        self.whole = whole
        if whole:
            self._decoders[None] = self._decoder()

    def logits(self, layout: Layout, adapter: str | None = None) -> torch.Tensor:
        """Return float32 logits, wanted rows x vocabulary, having written the pass's keys and values.

        ``adapter`` names what the model computes with at present.
        """
        tables = self._maker.make(layout.plan, layout.tokens, layout.positions, layout.logit_rows)
        tokens, positions, wanted = map(torch.from_numpy, (tables.tokens, tables.positions, tables.wanted))
        with torch.inference_mode():
            attention = NativeAttention(self._library, self._shape, self._heads, tables, self._room)
            decoder = self._decoder_with(adapter) if self.whole else None
            if decoder is None:
                return self._calling.logits(attention, tokens, positions, wanted)
            return decoder.logits(attention.described, tokens, positions, wanted, self._room.address)

    def _decoder(self) -> NativeDecoder:
        return NativeDecoder(self._model, self._kind, self._heads, self._library)

    def _decoder_with(self, adapter: str | None) -> NativeDecoder | None:
        """Return the decoder with an adapter, which is switched on; None for one that it cannot compute with."""
        if adapter not in self._decoders:
            try:
                self._decoders[adapter] = self._decoder()
            except UnlikeError as error:
                _log.info("Layers with the adapter %s are computed one operator after the other: %s", adapter, error)
                self._decoders[adapter] = None
        return self._decoders[adapter]

    def release(self) -> None:
        """Give back what is kept between passes, since memory ran out."""
        self._room.clear()


class NativeAttention:
    """One pass's tables, ready for every layer; ``described`` is what kernels are called with."""

    def __init__(self, kernels: Library, shape: CacheShape, heads: int, tables: Tables, room: Room) -> None:
        kind = shape.uniform
        assert kind is not None
        self._library, self._places = kernels, shape.places
        self._kept = tables, room
        sizes = tables.sizes
        self.described = Attention(
            out=room.address("out", sizes.results * heads * kind.key_dim),
            lse=room.address("lse", sizes.results * heads),
            rows=sizes.rows, most=sizes.parts, heads=kind.heads, repeat=heads // kind.heads,
        )  # fmt: skip
        for name in ("places", "few", "many", "masked", "listed", "parts", "masks"):
            table = getattr(tables, name)
            assert table.flags.c_contiguous
            setattr(self.described, name, table.ctypes.data)
            if name in {"few", "many", "masked"}:
                setattr(self.described, f"{name}_count", len(table) // COLUMNS)

    def attend(self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float) -> torch.Tensor:
        """Return a layer's attention, rows x heads x width, having written the rows' keys and values."""
        q, k, v = (t if t.stride(-1) == 1 else t.contiguous() for t in (q, k, v))
        summed = torch.empty((len(q), q.shape[1], v.shape[2]))
        to = self.described
        to.q, to.k, to.v, to.summed = q.data_ptr(), k.data_ptr(), v.data_ptr(), summed.data_ptr()
        (to.q_row, to.q_head), (to.k_row, to.k_head), (to.v_row, to.v_head) = (t.stride()[:2] for t in (q, k, v))
        to.layer, to.scale = self._places[layer], scale * LOG2_E
        self._library.attend(to)
        return summed
