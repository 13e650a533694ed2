"""Linear layers whose weights lie as the processor's matrix kernels want them.

Concept: weights are reordered once at loading, for our own kernels (:mod:`influence_transformers.native.products`) where
they can be compiled, else for oneDNN, which takes two to four times as long with few rows, as in decoding. Invariant: a
packed layer computes what the plain one does up to rounding, for any number of rows; the plain weight is let go, so that
nothing lies in memory twice but a weight that embeddings share.
"""

from __future__ import annotations

import ctypes
import logging
import sys
from collections.abc import Callable

import torch
from torch import nn

from influence_transformers.native.compiling import CompileError
from influence_transformers.native.products import NativeLinear

_log = logging.getLogger(__name__)

_KINDS = (torch.float32, torch.bfloat16)
_ROWS_TRIED = (3, 11, 40)
"""Numbers of rows, for which kernels go different ways."""
_ROWS = 512
"""The number of rows that the layout is chosen for; it serves fewer as well."""


class PackedLinear(nn.Linear):
    """A linear layer over a packed weight; adapters can be put on top of it as on any linear layer."""

    weight: torch.Tensor

    def __init__(self, plain: nn.Linear) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = plain.in_features, plain.out_features
        packed = torch.ops.mkldnn._reorder_linear_weight(plain.weight.detach(), _ROWS)  # noqa: SLF001
        self.register_buffer("weight", packed, persistent=False)
        self.register_buffer("bias", None if plain.bias is None else plain.bias.detach(), persistent=False)

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002 - the name that torch gives it
        """Return the product, rows x out features."""
        product = torch.ops.mkldnn._linear_pointwise.default  # noqa: SLF001
        out: torch.Tensor = product(input, self.weight, self.bias, "none", [], "")
        return out


PACKED = (NativeLinear, PackedLinear)
"""Linear layers whose weights cannot be had back."""


def pack_linears(model: nn.Module, *, native: bool = True) -> int:
    """Replace the model's linear layers by packed ones where the processor has kernels for them; return how many.

    ``native``: by kernels of our own where they can be compiled.
    """
    found = [
        (parent, name, child)
        for parent in list(model.modules())
        for name, child in parent.named_children()
        if type(child) is nn.Linear and child.weight.dtype in _KINDS and child.weight.device.type == "cpu"
    ]
    found = [each for each in found if each[2].weight.dtype == found[0][2].weight.dtype]
    kinds = (NativeLinear, PackedLinear) if native else (PackedLinear,)
    pack = next((kind for kind in kinds if found and _serves(kind, found[0][2])), None)
    if pack is None:
        return 0
    count = len(found)
    while found:
        parent, name, child = found.pop()
        setattr(parent, name, pack(child))
        del child
    _trim()
    return count


def _trim() -> None:
    """Let the C library give back what the plain weights took; it would keep it (400 MB of a 135M model were seen)."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def _serves(pack: Callable[[nn.Linear], nn.Module], layer: nn.Linear) -> bool:
    """Return whether layers like this can be packed in this way here, found by trying."""
    if pack is NativeLinear and layer.weight.dtype != torch.float32:
        return False
    try:
        with torch.inference_mode():
            packed = pack(layer)
            return all(_alike(packed, layer, count) for count in _ROWS_TRIED)
    except CompileError as error:
        _log.warning("Models take two to three times as long on this processor as they could: %s", error)
        return False
    except (RuntimeError, AttributeError):
        return False


def _alike(packed: nn.Module, plain: nn.Linear, count: int) -> bool:
    """Return whether a packed layer computes what the plain one does of so many rows."""
    rows = torch.linspace(-1.0, 1.0, count * plain.in_features, dtype=torch.float32).view(count, -1)
    ours, own = (layer(rows.to(plain.weight.dtype)).float() for layer in (packed, plain))
    share = 1e-4 if plain.weight.dtype == torch.float32 else 0.05
    return bool(torch.allclose(ours, own, rtol=share, atol=share * float(own.abs().max()) + 1e-6))
