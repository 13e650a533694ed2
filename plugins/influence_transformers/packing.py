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
from typing import Any

import torch
from torch import nn

from influence_transformers.native.compiling import CompileError
from influence_transformers.native.products import NativeLinear

_log = logging.getLogger(__name__)

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
        if type(child) is nn.Linear
    ]
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
    weight = layer.weight
    kinds = (torch.float32,) if pack is NativeLinear else (torch.float32, torch.bfloat16)
    if weight.device.type != "cpu" or weight.dtype not in kinds:
        return False
    rows = torch.linspace(-1.0, 1.0, 3 * layer.in_features, dtype=torch.float32).view(3, -1).to(weight.dtype)
    try:
        with torch.inference_mode():
            ours, own = pack(layer)(rows), layer(rows)
    except CompileError as error:
        _log.warning("Models take two to three times as long on this processor as they could: %s", error)
        return False
    except (RuntimeError, AttributeError):
        return False
    return bool(torch.allclose(ours.float(), own.float(), rtol=0.05, atol=_tolerance(own)))


def _tolerance(values: Any) -> float:
    return 0.05 * float(values.float().abs().max()) + 1e-6
