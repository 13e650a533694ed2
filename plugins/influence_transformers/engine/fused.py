"""Attention of one part by the device's fused kernel, with the log-sum-exp of its scores.

Source: kernels that keep the log-sum-exp: Dao, FlashAttention-2, 2023 (arXiv 2307.08691).
"""

from __future__ import annotations

from typing import Any

import torch


def full(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return attention of rows that see all keys (kv heads x 1 x m x width), and its log-sum-exp.

    Shapes: n x kv heads x heads of each x width, and without the width; views of what the kernel wrote.
    """
    n, heads, width = q.shape
    groups = k.shape[0]
    repeat = heads // groups
    folded = q.view(n, groups, repeat, width).permute(1, 2, 0, 3).reshape(groups, 1, repeat * n, width)
    out, lse = kernel(folded, k, v, False, scale)
    out = out.reshape(groups, repeat, n, v.shape[3]).permute(2, 0, 1, 3)
    return out, lse.reshape(groups, repeat, n).permute(2, 0, 1)


def causal(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return attention of rows to those before them and themselves, shaped as :func:`full` does."""
    n, heads, width = q.shape
    groups = k.shape[1]
    folded = q.reshape(n, groups, heads // groups, width).permute(1, 2, 0, 3)
    keys, values = (t.transpose(0, 1).unsqueeze(1).expand(groups, heads // groups, n, t.shape[2]) for t in (k, v))
    out, lse = kernel(folded, keys, values, True, scale)
    return out.permute(2, 0, 1, 3), lse.permute(2, 0, 1)


def masked(mask: torch.Tensor) -> Any:
    """Return what computes attention of rows to those of them that ``mask`` (n x n, true: sees) says."""

    def part(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float) -> tuple[torch.Tensor, torch.Tensor]:
        repeat = q.shape[1] // k.shape[1]
        keys, values = (t.repeat_interleave(repeat, dim=1).float() for t in (k, v))
        scores = torch.einsum("nhd,mhd->nhm", q.float(), keys) * scale
        scores = scores.masked_fill(~mask.unsqueeze(1), -torch.inf)
        out = torch.einsum("nhm,mhd->nhd", scores.softmax(-1), values)
        return out.to(q.dtype), scores.logsumexp(-1)

    return part


def kernel(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, is_causal: bool, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return attention and its log-sum-exp by the device's fused kernel; all tensors are batch x heads x rows x width."""
    if q.shape[-1] == v.shape[-1]:
        if q.device.type == "cpu":
            fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default  # noqa: SLF001
            out, lse = fused(q, k, v, 0.0, is_causal, scale=scale)
            return out, lse
        if q.device.type == "cuda":
            out, lse, *_ = torch.ops.aten._scaled_dot_product_efficient_attention.default(  # noqa: SLF001
                q, k, v, None, True, 0.0, is_causal, scale=scale
            )
            return out, lse[..., : q.shape[2]]
    scores = torch.matmul(q.float(), k.float().transpose(-1, -2)) * scale
    if is_causal:
        n, m = scores.shape[-2:]
        scores = scores.masked_fill(torch.ones(n, m, dtype=torch.bool, device=q.device).triu(1), -torch.inf)
    return torch.matmul(scores.softmax(-1), v.float()).to(q.dtype), scores.logsumexp(-1)
