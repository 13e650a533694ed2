"""Attention over segments, as an attention implementation that Hugging Face models call by name.

Concept: the rows of one forward pass are tokens of many sequences. What a row may see is a set of parts: whole spans
of segments, the rows of its own chunk up to itself, or rows named by a small mask. Each part is one call of a fused
kernel that also returns the log-sum-exp of its scores, and the parts of a row are added with those as weights. A span
that several sequences share is read once for all of them. Invariant: the result equals softmax attention over the
union of a row's parts, up to rounding; positions are written to a segment before they are read.
Source: reading what sequences share apart from the rest, and adding the parts up: Juravsky et al., Hydragen, 2024 (arXiv
2402.05099); kernels that keep the log-sum-exp: Dao, FlashAttention-2, 2023 (arXiv 2307.08691).
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch.nn.functional import embedding_bag
from transformers import AttentionInterface

from influence_transformers.engine.segments import Layers, LayerShape, Segment, Span

NAME = "influence_segments"
"""What the implementation is called in ``config._attn_implementation``."""

_HANDLED = frozenset({"dropout", "position_ids", "position_embeddings", "use_cache", "cache_position", "is_causal"})
_REFUSED = ("softcap", "s_aux", "position_bias")
_state = threading.local()


class UnsupportedAttentionError(Exception):
    """The model asks for something that attention over segments does not do."""


class Write(NamedTuple):
    """Rows ``start`` to ``stop`` of the pass go to ``segment`` from position ``at``."""

    segment: Segment
    at: int
    start: int
    stop: int


class Read(NamedTuple):
    """Rows (a range, or an index) that see all of some spans, which lie one after the other; a lone row sees one span."""

    spans: tuple[Span, ...]
    rows: slice | torch.Tensor
    size: int


class Among(NamedTuple):
    """Rows ``start`` to ``stop`` that see each other: those before them, or those that ``mask`` (n x n, true: sees) says."""

    start: int
    stop: int
    mask: torch.Tensor | None


class Partials:
    """The partial results of one layer's rows and the log-sum-exp of their scores, in float32, and their sum.

    A pass has one for all layers of a shape: what a kernel returns is copied into it once.
    """

    def __init__(self, parts: torch.Tensor, size: int, heads: int, width: int) -> None:
        device = parts.device
        self.filled = 0
        self.out = torch.empty((size + 1, heads, width), dtype=torch.float32, device=device)
        self.lse = torch.empty((size + 1, heads), dtype=torch.float32, device=device)
        self.out[size], self.lse[size] = 0.0, -torch.inf
        by_head = parts.unsqueeze(1) * heads + torch.arange(heads, device=device).view(1, heads, 1)
        self._places = by_head.reshape(len(parts) * heads, -1).contiguous()

    def add(self, out: torch.Tensor, lse: torch.Tensor) -> None:
        """Take the next rows' results (n x ... x width, the heads in between) and weights (n x ...)."""
        span = slice(self.filled, self.filled + len(out))
        self.out[span].view(out.shape).copy_(out)
        self.lse[span].view(lse.shape).copy_(lse)
        self.filled = span.stop

    def summed(self) -> torch.Tensor:
        """Return each row's partial results, weighted and added, rows x heads x width."""
        heads, width = self.out.shape[1:]
        shares = torch.softmax(self.lse.view(-1)[self._places], dim=1)
        out = embedding_bag(self._places, self.out.view(-1, width), mode="sum", per_sample_weights=shares)
        return out.view(-1, heads, width)


@dataclass
class Plan:
    """What one forward pass writes and reads; the same for every layer.

    :meth:`seal` takes the reads of single rows out of ``reads``, as ``lone`` (their rows) and ``lone_seen``, and the
    writes of single rows out of ``writes``. ``parts`` (rows x most parts of a row) lists where a row's partial results
    lie in the order lone, reads, among; one past the last pads.
    """

    rows: int
    writes: list[Write] = field(default_factory=list)
    reads: list[Read] = field(default_factory=list)
    among: list[Among] = field(default_factory=list)
    parts: torch.Tensor | None = None
    places: dict[int, int] = field(default_factory=dict)
    seen: list[list[tuple[Layers, Layers]]] = field(default_factory=list)
    lone: list[int] = field(default_factory=list)
    lone_seen: list[tuple[Layers, Layers]] = field(default_factory=list)
    single_rows: list[int] = field(default_factory=list)
    single_places: list[tuple[Layers, Layers]] = field(default_factory=list)
    partials: dict[tuple[int, int], Partials] = field(default_factory=dict)

    def seal(self, device: torch.device) -> None:
        """Work out where each row's partial results will lie, and make the views that every layer needs."""
        self.places = self.writes[0].segment.pool.shape.places
        alone = [read for read in self.reads if read.size == 1 and len(read.spans) == 1]
        self.reads = [read for read in self.reads if read.size > 1 or len(read.spans) > 1]
        self.lone = [row for read in alone for row in self._rows_of(read)]
        self.lone_seen = [segment.by_layer(start, stop) for ((segment, start, stop),), _, _ in alone]
        self.seen = [[segment.by_layer(start, stop) for segment, start, stop in read.spans] for read in self.reads]
        singles = [write for write in self.writes if write.stop - write.start == 1]
        self.single_rows = [write.start for write in singles]
        self.single_places = [write.segment.by_layer(write.at, write.at + 1) for write in singles]
        self.writes = [write for write in self.writes if write.stop - write.start > 1]
        lists: list[list[int]] = [[] for _ in range(self.rows)]
        for at, row in enumerate(self.lone):
            lists[row].append(at)
        at = len(self.lone)
        for read in self.reads:
            for row in self._rows_of(read):
                lists[row].append(at)
                at += 1
        for part in self.among:
            for row in range(part.start, part.stop):
                lists[row].append(at)
                at += 1
        most = max(map(len, lists))
        self.parts = torch.tensor([x + [at] * (most - len(x)) for x in lists], device=device)

    def partials_of(self, heads: int, width: int) -> Partials:
        """Return the room for partial results of layers of this shape, emptied."""
        assert self.parts is not None
        found = self.partials.get((heads, width))
        if found is None:
            sizes = [len(self.lone), *(read.size for read in self.reads), *(p.stop - p.start for p in self.among)]
            found = self.partials[heads, width] = Partials(self.parts, sum(sizes), heads, width)
        found.filled = 0
        return found

    def _rows_of(self, read: Read) -> Iterable[int]:
        if isinstance(read.rows, slice):
            return range(*read.rows.indices(self.rows))
        rows: list[int] = read.rows.tolist()
        return rows


@dataclass
class Probe:
    """Stands in for a plan to learn the shapes of a model's keys and values; rows see all rows before them."""

    layers: dict[int, LayerShape] = field(default_factory=dict)
    dtype: torch.dtype | None = None
    window: int | None = None


def use(plan: Plan | Probe | None) -> None:
    """Set the plan that this thread's next forward passes follow."""
    _state.plan = plan


def attend(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Return attention of the rows, 1 x rows x heads x value width; query 1 x heads x rows x width, key alike."""
    plan = getattr(_state, "plan", None)
    if plan is None or attention_mask is not None or query.shape[0] != 1:
        raise UnsupportedAttentionError("attention over segments was called without a plan or with a mask")
    if any(kwargs.get(name) is not None for name in _REFUSED) or not getattr(module, "is_causal", True):
        raise UnsupportedAttentionError("this attention has score caps, sinks, biases or is not causal")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    q, k, v = (t[0].transpose(0, 1) for t in (query, key, value))
    if isinstance(plan, Probe):
        plan.layers[module.layer_idx] = LayerShape(k.shape[1], k.shape[2], v.shape[2])
        plan.dtype = k.dtype
        if sliding_window is not None:
            plan.window = min(sliding_window, plan.window or sliding_window)
        out, _ = _causal(q, k, v, scale)
        return out.reshape(1, len(q), q.shape[1], v.shape[2]), None
    return _planned(plan, module.layer_idx, q, k, v, scale).unsqueeze(0), None


def _planned(plan: Plan, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float) -> torch.Tensor:
    place = plan.places[layer]
    _write(plan, place, layer, k, v)
    partials = plan.partials_of(q.shape[1], v.shape[2])
    if plan.lone:
        partials.add(*_lone(plan, place, q, scale))
    for (_, rows, _), views in zip(plan.reads, plan.seen, strict=True):
        keys, values = ([view[which][place] for view in views] for which in (0, 1))
        whole = (keys[0], values[0]) if len(views) == 1 else (torch.cat(keys, 2), torch.cat(values, 2))
        partials.add(*_full(q[rows], *whole, scale))
    for start, stop, mask in plan.among:
        span = slice(start, stop)
        part = _causal if mask is None else _masked(mask)
        partials.add(*part(q[span], k[span], v[span], scale))
    return partials.summed().to(q.dtype)


def _lone(plan: Plan, place: int, q: torch.Tensor, scale: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the results of the reads of one row each; what they share in handling is done for all at once."""
    groups = plan.lone_seen[0][0][place].shape[0]
    heads, width = q.shape[1:]
    first = q[: max(plan.lone) + 1]  # single rows lie at the beginning of a pass
    rows = first.view(len(first), groups, 1, heads // groups, width).unbind(0)
    found = [
        _kernel(rows[row], keys[place], values[place], False, scale)
        for row, (keys, values) in zip(plan.lone, plan.lone_seen, strict=True)
    ]
    outs, weights = zip(*found, strict=True)
    return torch.stack(outs).view(len(found), heads, -1), torch.stack(weights).view(len(found), heads)


def _write(plan: Plan, place: int, layer: int, k: torch.Tensor, v: torch.Tensor) -> None:
    """Put the pass's keys and values where they belong; those of single rows together."""
    if plan.single_rows:
        first = max(plan.single_rows) + 1
        keys, values = (t[:first].unsqueeze(2).unsqueeze(3).unbind(0) for t in (k, v))  # each heads x 1 x 1 x width
        sources = [keys[row] for row in plan.single_rows] + [values[row] for row in plan.single_rows]
        into = [views[0][place] for views in plan.single_places] + [views[1][place] for views in plan.single_places]
        torch._foreach_copy_(into, sources)
    for segment, at, start, stop in plan.writes:
        segment.keys[layer][:, at : at + stop - start] = k[start:stop].transpose(0, 1)
        segment.values[layer][:, at : at + stop - start] = v[start:stop].transpose(0, 1)


def _full(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return attention of rows that see all keys (kv heads x 1 x m x width), and its log-sum-exp.

    Shapes: n x kv heads x heads of each x width, and without the width; views of what the kernel wrote.
    """
    n, heads, width = q.shape
    groups = k.shape[0]
    repeat = heads // groups
    folded = q.view(n, groups, repeat, width).permute(1, 2, 0, 3).reshape(groups, 1, repeat * n, width)
    out, lse = _kernel(folded, k, v, False, scale)
    out = out.reshape(groups, repeat, n, v.shape[3]).permute(2, 0, 1, 3)
    return out, lse.reshape(groups, repeat, n).permute(2, 0, 1)


def _causal(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return attention of rows to those before them and themselves, shaped as :func:`_full` does."""
    n, heads, width = q.shape
    groups = k.shape[1]
    folded = q.reshape(n, groups, heads // groups, width).permute(1, 2, 0, 3)
    keys, values = (t.transpose(0, 1).unsqueeze(1).expand(groups, heads // groups, n, t.shape[2]) for t in (k, v))
    out, lse = _kernel(folded, keys, values, True, scale)
    return out.permute(2, 0, 1, 3), lse.permute(2, 0, 1)


def _masked(mask: torch.Tensor) -> Any:
    def part(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float) -> tuple[torch.Tensor, torch.Tensor]:
        repeat = q.shape[1] // k.shape[1]
        keys, values = (t.repeat_interleave(repeat, dim=1).float() for t in (k, v))
        scores = torch.einsum("nhd,mhd->nhm", q.float(), keys) * scale
        scores = scores.masked_fill(~mask.unsqueeze(1), -torch.inf)
        out = torch.einsum("nhm,mhd->nhd", scores.softmax(-1), values)
        return out.to(q.dtype), scores.logsumexp(-1)

    return part


def _kernel(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, causal: bool, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return attention and its log-sum-exp by the device's fused kernel; all tensors are batch x heads x rows x width."""
    if q.shape[-1] == v.shape[-1]:
        if q.device.type == "cpu":
            fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default  # noqa: SLF001
            out, lse = fused(q, k, v, 0.0, causal, scale=scale)
            return out, lse
        if q.device.type == "cuda":
            out, lse, *_ = torch.ops.aten._scaled_dot_product_efficient_attention.default(  # noqa: SLF001
                q, k, v, None, True, 0.0, causal, scale=scale
            )
            return out, lse[..., : q.shape[2]]
    scores = torch.matmul(q.float(), k.float().transpose(-1, -2)) * scale
    if causal:
        n, m = scores.shape[-2:]
        scores = scores.masked_fill(torch.ones(n, m, dtype=torch.bool, device=q.device).triu(1), -torch.inf)
    return torch.matmul(scores.softmax(-1), v.float()).to(q.dtype), scores.logsumexp(-1)


AttentionInterface.register(NAME, attend)
