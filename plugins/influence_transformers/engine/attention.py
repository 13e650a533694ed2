"""Attention over segments, as an attention implementation that Hugging Face models call by name.

Concept: the rows of one forward pass are tokens of many sequences. What a row may see is a set of parts: whole spans
of segments, the rows of its own chunk up to itself, or rows named by a small mask. Each part is one call of a fused
kernel that also returns the log-sum-exp of its scores, and the parts of a row are added with those as weights. A span
that several sequences share is read once for all of them. Invariant: the result equals softmax attention over the
union of a row's parts, up to rounding; positions are written to a segment before they are read. How the parts are
computed is the business of what a plan is made ready by: :mod:`~influence_transformers.engine.calls` on every device,
:mod:`~influence_transformers.engine.tables` on a GPU, :mod:`~influence_transformers.native` on a processor.
Source: reading what sequences share apart from the rest, and adding the parts up: Juravsky et al., Hydragen, 2024 (arXiv
2402.05099).
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import torch
from transformers import AttentionInterface

from influence_transformers.engine.fused import causal
from influence_transformers.engine.segments import LayerShape, Segment, Span

NAME = "influence_segments"
"""What the implementation is called in ``config._attn_implementation``."""

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


class Single(NamedTuple):
    """A row that goes to ``segment`` at position ``at`` and sees all positions there up to itself."""

    segment: Segment
    at: int


class Read(NamedTuple):
    """Rows that see all of some spans, which lie one after the other."""

    spans: tuple[Span, ...]
    rows: Sequence[int]


class Among(NamedTuple):
    """Rows ``start`` to ``stop`` that see each other: those before them, or those that ``mask`` (n x n, true: sees) says."""

    start: int
    stop: int
    mask: torch.Tensor | None


class View(NamedTuple):
    """Rows ``start`` to ``stop`` of one sequence, and all that they see, in the order of positions.

    That is all of ``above``, what is in ``segment`` before ``at``, and each other: those before them, which are written to
    the segment from ``at`` on, or those that ``mask`` says (as in :class:`Among`), which are not.
    """

    start: int
    stop: int
    above: tuple[Span, ...]
    segment: Segment
    at: int
    mask: torch.Tensor | None


@dataclass
class Plan:
    """What one forward pass of ``rows`` rows writes and reads; the same for every layer.

    The first rows are ``singles``, one each; what else they see is among ``reads``, as for all rows. ``views`` says the same
    once more, by sequences instead of by what they share.
    """

    rows: int = 0
    singles: list[Single] = field(default_factory=list)
    writes: list[Write] = field(default_factory=list)
    reads: list[Read] = field(default_factory=list)
    among: list[Among] = field(default_factory=list)
    views: list[View] = field(default_factory=list)


class Attention(Protocol):
    """A plan made ready for a device."""

    def attend(self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float) -> torch.Tensor:
        """Return a layer's attention, rows x heads x value width, of queries, keys and values, rows x heads x width."""
        ...


@dataclass
class Probe:
    """Stands in for a plan to learn the shapes of a model's keys, values and queries; rows see all rows before them."""

    layers: dict[int, LayerShape] = field(default_factory=dict)
    heads: set[int] = field(default_factory=set)
    dtype: torch.dtype | None = None
    window: int | None = None


def use(attention: Attention | Probe | None) -> None:
    """Set what this thread's next forward passes follow."""
    _state.attention = attention


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
    by = getattr(_state, "attention", None)
    if by is None or attention_mask is not None or query.shape[0] != 1:
        raise UnsupportedAttentionError("attention over segments was called without a plan or with a mask")
    if any(kwargs.get(name) is not None for name in _REFUSED) or not getattr(module, "is_causal", True):
        raise UnsupportedAttentionError("this attention has score caps, sinks, biases or is not causal")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    q, k, v = (t[0].transpose(0, 1) for t in (query, key, value))
    if isinstance(by, Probe):
        by.layers[module.layer_idx] = LayerShape(k.shape[1], k.shape[2], v.shape[2])
        by.heads.add(q.shape[1])
        by.dtype = k.dtype
        if sliding_window is not None:
            by.window = min(sliding_window, by.window or sliding_window)
        out, _ = causal(q, k, v, scale)
        return out.reshape(1, len(q), q.shape[1], v.shape[2]), None
    return by.attend(module.layer_idx, q, k, v, scale).unsqueeze(0), None


AttentionInterface.register(NAME, attend)
