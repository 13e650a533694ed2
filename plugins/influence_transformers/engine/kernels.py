"""The kernels that do a pass's tables (:mod:`influence_transformers.engine.tables`) on a GPU; needs Triton.

Concept: one launch writes the rows' keys and values, one for each kind of item reads, and one adds each row's partial
results up, whatever the number of sequences. Invariant: offsets count elements of the cache from ``origin``.
Source: softmax in one pass over the keys: Dao et al., FlashAttention, 2022 (arXiv 2205.14135).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl

from influence_transformers.engine.tables import COLUMNS, FEW, MANY, WORD

_LOG2_E = 1.4426950408889634


class Tile(NamedTuple):
    """How a read is compiled: positions taken at once, warps of a program, stages of its loads."""

    stride: int
    warps: int
    stages: int


FEW_TILE, MANY_TILE = Tile(64, 2, 3), Tile(32, 4, 3)
"""For items of few rows, and for others; the fastest of ten each that were tried on an H100."""


@triton.jit(do_not_specialize=["layer"])
def _write(k, v, origin, places, layer, k_row, k_head, v_row, v_head, HEADS: tl.constexpr, WIDTH: tl.constexpr,
           HEADS_UP: tl.constexpr, WIDTH_UP: tl.constexpr):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    base = tl.load(places + row * 3)
    capacity = tl.load(places + row * 3 + 1)
    position = tl.load(places + row * 3 + 2)
    if capacity == 0:
        return
    heads = tl.arange(0, HEADS_UP)[:, None]
    columns = tl.arange(0, WIDTH_UP)[None, :]
    inside = (heads < HEADS) & (columns < WIDTH)
    plane = tl.multiple_of(base, 16) + (layer * 2 * HEADS + heads) * (capacity * WIDTH)
    into = origin + plane + position * WIDTH + columns
    tl.store(into, tl.load(k + row * k_row + heads * k_head + columns, mask=inside), mask=inside)
    tl.store(
        into + HEADS * capacity * WIDTH, tl.load(v + row * v_row + heads * v_head + columns, mask=inside), mask=inside
    )


@triton.jit(do_not_specialize=["layer"])
def _read(q, origin, out, lse, items, listed, masks, layer, scale, q_row, q_head, REPEAT: tl.constexpr,
          HEADS: tl.constexpr, WIDTH: tl.constexpr, WIDTH_UP: tl.constexpr, BLOCK: tl.constexpr, STRIDE: tl.constexpr,
          MASKED: tl.constexpr, WORD: tl.constexpr, COLUMNS: tl.constexpr, PRECISION: tl.constexpr):  # fmt: skip
    item = items + tl.program_id(0) * COLUMNS
    head = tl.program_id(1)
    count = tl.load(item + 5).to(tl.int32)
    if count == 0:
        return
    base = tl.load(item)
    capacity = tl.load(item + 1)
    start = tl.load(item + 2).to(tl.int32)
    stop = tl.load(item + 3).to(tl.int32)
    first = tl.load(item + 4)
    limit = tl.load(item + 6).to(tl.int32)
    step = tl.load(item + 7).to(tl.int32)
    result = tl.load(item + 8)
    lane = tl.arange(0, BLOCK)
    row = lane // REPEAT
    query_head = head * REPEAT + lane % REPEAT
    live = row < count
    rows = tl.load(listed + first + row, mask=live, other=0)
    columns = tl.arange(0, WIDTH_UP)
    wide = columns < WIDTH
    queries = tl.load(
        q + rows[:, None] * q_row + query_head[:, None] * q_head + columns[None, :],
        mask=live[:, None] & wide[None, :], other=0.0,
    )  # fmt: skip
    keys = origin + tl.multiple_of(base + (layer * 2 * HEADS + head) * (capacity * WIDTH), 16)
    values = keys + HEADS * capacity * WIDTH
    limits = limit + row * step
    most = tl.full([BLOCK], -float("inf"), tl.float32)
    total = tl.zeros([BLOCK], tl.float32)
    sums = tl.zeros([BLOCK, WIDTH_UP], tl.float32)
    for at in range(start, stop, STRIDE):
        position = at + tl.arange(0, STRIDE)
        inside = position < stop
        key = tl.load(
            keys + position[None, :] * WIDTH + columns[:, None], mask=inside[None, :] & wide[:, None], other=0.0
        )
        scores = tl.dot(queries, key, input_precision=PRECISION) * scale
        seen = inside[None, :] & (position[None, :] < limits[:, None])
        if MASKED:
            first_word = tl.load(item + 9)
            words = tl.load(item + 10)
            place = position - start
            bits = tl.load(
                masks + first_word + row[:, None] * words + (place // WORD)[None, :],
                mask=live[:, None] & inside[None, :], other=0,
            )  # fmt: skip
            seen = seen & (((bits >> (place % WORD)[None, :]) & 1) != 0)
        scores = tl.where(seen, scores, -float("inf"))
        higher = tl.maximum(most, tl.max(scores, 1))
        level = tl.where(higher == -float("inf"), 0.0, higher)
        fade = tl.exp2(most - level)
        weights = tl.exp2(scores - level[:, None])
        total = total * fade + tl.sum(weights, 1)
        value = tl.load(
            values + position[:, None] * WIDTH + columns[None, :], mask=inside[:, None] & wide[None, :], other=0.0
        )
        sums = sums * fade[:, None] + tl.dot(weights.to(value.dtype), value, input_precision=PRECISION)
        most = higher
    place = (result + row) * (HEADS * REPEAT) + query_head
    nothing = total == 0.0
    sums = sums / tl.where(nothing, 1.0, total)[:, None]
    tl.store(out + place[:, None] * WIDTH + columns[None, :], sums, mask=live[:, None] & wide[None, :])
    tl.store(lse + place, tl.where(nothing, -float("inf"), most + tl.log2(tl.where(nothing, 1.0, total))), mask=live)


@triton.jit
def _add_up(out, lse, parts, summed, MOST: tl.constexpr, REPEAT: tl.constexpr, HEADS: tl.constexpr,
            WIDTH: tl.constexpr, REPEAT_UP: tl.constexpr, WIDTH_UP: tl.constexpr):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    each = tl.arange(0, REPEAT_UP)
    head = tl.program_id(1) * REPEAT + each
    real = each < REPEAT
    columns = tl.arange(0, WIDTH_UP)
    inside = real[:, None] & (columns < WIDTH)[None, :]
    most = tl.full([REPEAT_UP], -float("inf"), tl.float32)
    for n in range(MOST):
        part = tl.load(parts + row * MOST + n)
        if part >= 0:
            most = tl.maximum(most, tl.load(lse + part * (HEADS * REPEAT) + head, mask=real, other=-float("inf")))
    level = tl.where(most == -float("inf"), 0.0, most)
    total = tl.zeros([REPEAT_UP], tl.float32)
    sums = tl.zeros([REPEAT_UP, WIDTH_UP], tl.float32)
    for n in range(MOST):
        part = tl.load(parts + row * MOST + n)
        if part >= 0:
            place = part * (HEADS * REPEAT) + head
            weight = tl.exp2(tl.load(lse + place, mask=real, other=-float("inf")) - level)
            total += weight
            sums += weight[:, None] * tl.load(out + place[:, None] * WIDTH + columns[None, :], mask=inside, other=0.0)
    sums = sums / tl.where(total == 0.0, 1.0, total)[:, None]
    into = summed + (row * (HEADS * REPEAT) + head)[:, None] * WIDTH + columns[None, :]
    tl.store(into, sums.to(summed.dtype.element_ty), mask=inside)


class Shape:
    """What the kernels are compiled for: key heads, query heads of each, width of a head, and the cache's numbers."""

    def __init__(self, heads: int, repeat: int, width: int, origin: torch.Tensor) -> None:
        self.heads, self.repeat, self.width, self.origin = heads, repeat, width, origin
        self.width_up = triton.next_power_of_2(width)
        self._common: dict[str, Any] = {"HEADS": heads, "WIDTH": width, "WIDTH_UP": self.width_up}
        self._small = self.width_up <= 128 and origin.element_size() == 2
        self._precision = "ieee" if origin.dtype == torch.float32 else "tf32"

    def write(self, places: torch.Tensor, layer: int, k: torch.Tensor, v: torch.Tensor) -> None:
        """Write rows' keys and values (rows x key heads x width) where ``places`` says."""
        strides = (k.stride(0), k.stride(1), v.stride(0), v.stride(1))
        _write[(len(k),)](
            k, v, self.origin, places, layer, *strides, HEADS_UP=triton.next_power_of_2(self.heads), **self._common
        )

    def read(
        self, q: torch.Tensor, out: torch.Tensor, lse: torch.Tensor, items: torch.Tensor, listed: torch.Tensor,
        masks: torch.Tensor, layer: int, scale: float, *, few: bool = False, masked: bool = False,
    ) -> None:  # fmt: skip
        """Write the partial results of ``items`` to ``out`` (results x heads x width) and ``lse`` (to the base 2)."""
        count = len(items) // COLUMNS
        if not count:
            return
        tile = FEW_TILE if few else MANY_TILE
        _read[(count, self.heads)](
            q, self.origin, out, lse, items, listed, masks, layer, scale * _LOG2_E, q.stride(0), q.stride(1),
            REPEAT=self.repeat, BLOCK=FEW if few else MANY, MASKED=masked, WORD=WORD, COLUMNS=COLUMNS,
            STRIDE=tile.stride if self._small else 32, PRECISION=self._precision, **self._common,
            num_warps=tile.warps, num_stages=tile.stages,
        )  # fmt: skip

    def add_up(self, out: torch.Tensor, lse: torch.Tensor, parts: torch.Tensor, summed: torch.Tensor) -> None:
        """Write each row's sum of its ``parts`` (rows x most) to ``summed`` (rows x heads x width)."""
        _add_up[(len(summed), self.heads)](
            out, lse, parts, summed, MOST=parts.shape[1], REPEAT=self.repeat,
            REPEAT_UP=triton.next_power_of_2(self.repeat), **self._common,
        )  # fmt: skip
