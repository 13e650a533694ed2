"""Attention over segments by one fused kernel call for each part; serves every device and every shape of a layer.

Concept: the parts of a pass (:mod:`influence_transformers.engine.attention`) are computed one by one and added up. What
the handling of single rows has in common is done for all of them at once, since it costs more than they do.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch.nn.functional import embedding_bag

from influence_transformers.engine.attention import Plan
from influence_transformers.engine.fused import causal, full, kernel, masked


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


class Calls:
    """One pass's parts, ready for every layer: views of segments, and where each row's partial results will lie.

    Partial results lie in the order: single rows, reads, rows among themselves; one past the last
    pads.
    """

    def __init__(self, plan: Plan, device: torch.device) -> None:
        shape = (plan.singles or plan.writes)[0].segment.pool.shape
        self._places = shape.places
        self._singles = len(plan.singles)
        self._seen_alone = [segment.by_layer(0, at + 1) for segment, at in plan.singles]
        self._single_places = [segment.by_layer(at, at + 1) for segment, at in plan.singles]
        self._seen = [[segment.by_layer(start, stop) for segment, start, stop in read.spans] for read in plan.reads]
        self._rows = [_index(read.rows, device) for read in plan.reads]
        self._among = [
            (slice(part.start, part.stop), causal if part.mask is None else masked(part.mask.to(device)))
            for part in plan.among
        ]
        self._writes = plan.writes
        groups = [range(self._singles), *(r.rows for r in plan.reads), *(range(p.start, p.stop) for p in plan.among)]
        self._parts, self._size = _parts(groups, plan.rows, device)
        self._partials: dict[tuple[int, int], Partials] = {}

    def attend(self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float) -> torch.Tensor:
        """Return a layer's attention, rows x heads x width, having written the rows' keys and values."""
        place = self._places[layer]
        self._write(place, layer, k, v)
        partials = self._partials_of(q.shape[1], v.shape[2])
        if self._singles:
            partials.add(*self._alone(place, q, scale))
        for rows, views in zip(self._rows, self._seen, strict=True):
            keys, values = ([view[which][place] for view in views] for which in (0, 1))
            whole = (keys[0], values[0]) if len(views) == 1 else (torch.cat(keys, 2), torch.cat(values, 2))
            partials.add(*full(q[rows], *whole, scale))
        for span, part in self._among:
            partials.add(*part(q[span], k[span], v[span], scale))
        return partials.summed().to(q.dtype)

    def _partials_of(self, heads: int, width: int) -> Partials:
        """Return the room for partial results of layers of this shape, emptied."""
        found = self._partials.get((heads, width))
        if found is None:
            found = self._partials[heads, width] = Partials(self._parts, self._size, heads, width)
        found.filled = 0
        return found

    def _alone(self, place: int, q: torch.Tensor, scale: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what single rows see of their own segments."""
        groups = self._seen_alone[0][0][place].shape[0]
        heads, width = q.shape[1:]
        rows = q[: self._singles].view(self._singles, groups, 1, heads // groups, width).unbind(0)
        found = [
            kernel(row, keys[place], values[place], False, scale)
            for row, (keys, values) in zip(rows, self._seen_alone, strict=True)
        ]
        outs, weights = zip(*found, strict=True)
        return torch.stack(outs).view(self._singles, heads, -1), torch.stack(weights).view(self._singles, heads)

    def _write(self, place: int, layer: int, k: torch.Tensor, v: torch.Tensor) -> None:
        """Put the pass's keys and values where they belong; those of single rows together."""
        if self._singles:
            # each heads x 1 x 1 x width
            keys, values = (t[: self._singles].unsqueeze(2).unsqueeze(3).unbind(0) for t in (k, v))
            views = self._single_places
            into = [keys[place] for keys, _ in views] + [values[place] for _, values in views]
            torch._foreach_copy_(into, [*keys, *values])
        for segment, at, start, stop in self._writes:
            segment.keys[layer][:, at : at + stop - start] = k[start:stop].transpose(0, 1)
            segment.values[layer][:, at : at + stop - start] = v[start:stop].transpose(0, 1)


def _index(rows: Sequence[int], device: torch.device) -> slice | torch.Tensor:
    """Return what picks the rows: a slice where they lie together."""
    together = rows[-1] - rows[0] + 1 == len(rows)
    return slice(rows[0], rows[-1] + 1) if together else torch.tensor(rows, device=device)


def _parts(groups: Iterable[Sequence[int]], rows: int, device: torch.device) -> tuple[torch.Tensor, int]:
    """Return for each row which partial results are its own (rows x most of a row), and how many there are in all."""
    lists: list[list[int]] = [[] for _ in range(rows)]
    size = 0
    for group in groups:
        for row in group:
            lists[row].append(size)
            size += 1
    most = max(map(len, lists))
    return torch.tensor([x + [size] * (most - len(x)) for x in lists], device=device), size
