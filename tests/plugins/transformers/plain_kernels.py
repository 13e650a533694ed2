"""The GPU's kernels written out in NumPy, as slow as they are plain: what tables mean, on any processor."""

import ctypes

import numpy as np
import torch

from influence_transformers.engine.tables import COLUMNS, WORD, Item


class Shape:
    """Stands in for :class:`influence_transformers.engine.kernels.Shape`; float32 only."""

    def __init__(self, heads, repeat, width, origin):
        assert origin.dtype == torch.float32
        self.heads, self.repeat, self.width, self.origin = heads, repeat, width, origin

    def memory(self, base, capacity, layer, which):
        """Return a layer's keys (0) or values (1) of the segment at ``base``: key heads x positions x width."""
        size = self.heads * capacity * self.width
        start = self.origin.data_ptr() + 4 * (base + (2 * layer + which) * size)
        return np.ctypeslib.as_array((ctypes.c_float * size).from_address(start)).reshape(
            self.heads, capacity, self.width
        )

    def write(self, places, layer, k, v):
        for row, (base, capacity, position) in enumerate(places.view(-1, 3).tolist()):
            for which, source in ((0, k), (1, v)) if capacity else ():
                self.memory(base, capacity, layer, which)[:, position] = source[row].numpy()

    def read(self, q, out, lse, items, listed, masks, layer, scale, *, few=False, masked=False):
        for row in items.view(-1, COLUMNS).tolist():
            item = Item(*row)
            assert (item.words > 0) == (masked and item.rows > 0)
            for i in range(item.rows):
                keys, values = (
                    self.memory(item.base, item.capacity, layer, w)[:, item.start : item.stop] for w in (0, 1)
                )
                at = np.arange(item.start, item.stop)
                seen = at < item.limit + i * item.step
                if item.words:
                    words = masks[item.mask + i * item.words :].numpy()
                    seen &= (words[(at - item.start) // WORD] >> ((at - item.start) % WORD) & 1) == 1
                queries = q[listed[item.listed + i]].numpy().reshape(self.heads, self.repeat, self.width)
                with np.errstate(divide="ignore"):
                    scores = np.where(seen, np.einsum("hrd,hnd->hrn", queries, keys) * scale, -np.inf)
                    most = np.where(seen.any(), scores.max(-1, keepdims=True), 0.0)
                    total = np.exp(scores - most).sum(-1, keepdims=True)
                    lse[item.result + i] = torch.from_numpy((most / np.log(2) + np.log2(total)).reshape(-1))
                shares = np.exp(scores - most) / np.where(total, total, 1.0)
                found = np.einsum("hrn,hnd->hrd", shares, values)
                out[item.result + i] = torch.from_numpy(found.reshape(-1, self.width))

    def add_up(self, out, lse, parts, summed):
        summed.zero_()
        for row, mine in enumerate(parts.tolist()):
            own = [part for part in mine if part >= 0]
            if own:
                shares = torch.softmax(lse[own] * np.log(2), 0)
                summed[row] = torch.einsum("ph,phd->hd", shares, out[own])
