"""Linear layers computed by our own kernels.

Concept: a weight lies in panels of columns, each of which is read once for a block of rows. A weight whose numbers are
bfloat16 in truth, as those of most published models are, is kept as bfloat16 and widened when it is read: few rows take as
long as reading the weights, so that half the memory is half the time. A row of such a panel lies in words, each of a number
of its first half and one of its second, so that one operation widens a half. Invariant: nothing is rounded on the way in.
"""

from __future__ import annotations

import ctypes

import torch
from torch import nn

from influence_transformers.native.library import CLinear, CProduct, library


class NativeLinear(nn.Linear):
    """A linear layer over panels, float32; adapters can be put on top of it as on any linear layer.

    ``weight`` has the shape and the type that adapters ask for, and no numbers. Raises CompileError.
    """

    weight: torch.Tensor

    def __init__(self, plain: nn.Linear) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = plain.in_features, plain.out_features
        self._library = library()
        weight, bias = plain.weight.detach(), None if plain.bias is None else plain.bias.detach()
        nowhere = torch.full((1, 1), torch.nan, dtype=torch.float32).expand(weight.shape)
        self.register_buffer("weight", nowhere, persistent=False)
        self.register_buffer("bias", bias, persistent=False)
        # no buffers, which others may replace: kernels know where they lie
        self.panels, self._padded = panels_of(weight), _padded(bias, self._library.panel)
        self.described = described(self.panels, self._padded)
        self._pointer = ctypes.pointer(self.described)

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002 - the name that torch gives it
        """Return the product, ... x out features; RuntimeError for rows that are not float32 on the processor."""
        if input.dtype != torch.float32 or input.device.type != "cpu":
            raise RuntimeError(f"a layer of float32 on the processor was given {input.dtype} on {input.device}")
        rows = input.reshape(-1, self.in_features).contiguous()
        width = self.described.width
        out = torch.empty((len(rows), width), dtype=torch.float32)
        self._library.multiply(
            CProduct(self._pointer, 1, rows.data_ptr(), out.data_ptr(), None, len(rows), self.in_features, width)
        )
        return out[:, : self.out_features].reshape(*input.shape[:-1], self.out_features)


def panels_of(weight: torch.Tensor) -> torch.Tensor:
    """Return a weight (out x in) as panels x in x columns, zeros after the last; bfloat16 if that says it all.

    Then the columns of a panel's two halves alternate.
    """
    columns = library().panel
    halves = weight.to(torch.bfloat16)
    if torch.equal(halves.float(), weight):
        weight = halves
    missing = -len(weight) % columns
    if missing:
        weight = torch.cat([weight, weight.new_zeros(missing, weight.shape[1])])
    panels = weight.view(-1, columns, weight.shape[1])
    if weight.dtype == torch.bfloat16:
        panels = panels.view(len(panels), 2, columns // 2, weight.shape[1]).transpose(1, 2).reshape(panels.shape)
    return panels.transpose(1, 2).contiguous()


def described(panels: torch.Tensor, bias: torch.Tensor | None = None) -> CLinear:
    """Return what kernels are told of a weight in panels, which the caller keeps."""
    count, depth, columns = panels.shape
    at = None if bias is None else bias.data_ptr()
    return CLinear(panels.data_ptr(), at, None, None, depth, count * columns, panels.dtype == torch.bfloat16)


def _padded(bias: torch.Tensor | None, columns: int) -> torch.Tensor | None:
    """Return a bias with zeros up to the end of the last panel."""
    return None if bias is None else nn.functional.pad(bias.float(), (0, -len(bias) % columns))
