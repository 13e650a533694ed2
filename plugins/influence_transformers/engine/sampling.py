"""Drawing tokens.

Invariant: a draw depends on a row's logits, its sampling settings and its own uniform number, never on other rows.
Tokens are drawn by inverting the cumulative distribution in float64, in the order of token ids (of probability, with
``top_p``), so that a rounding difference of the logits moves a draw only when the uniform number lies that close to a
boundary.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch


@dataclass
class Draws:
    """How one sequence draws: settings and its own stream of uniform numbers."""

    temperature: float
    top_p: float
    seed: int
    _stream: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self._stream = random.Random(self.seed)

    def next(self) -> float:
        """Return the next uniform number in [0, 1)."""
        return self._stream.random()


def draw_tokens(logits: torch.Tensor, draws: Sequence[Draws]) -> list[int]:
    """Return a token for each row of ``logits`` (rows x vocabulary, changed in place)."""
    chosen = logits.argmax(dim=-1).tolist()
    random_rows = [i for i, d in enumerate(draws) if d.temperature > 0.0]
    for wanted_nucleus in (False, True):
        rows = [i for i in random_rows if (draws[i].top_p < 1.0) is wanted_nucleus]
        for start in range(0, len(rows), _ROWS):
            part = rows[start : start + _ROWS]
            for row, token in zip(part, _draw(logits[part], [draws[i] for i in part]), strict=True):
                chosen[row] = token
    return [int(token) for token in chosen]


_ROWS = 16
"""Rows drawn at once; bounds the memory for float64 copies."""


def _draw(logits: torch.Tensor, draws: list[Draws]) -> list[int]:
    points = torch.tensor([d.next() for d in draws], dtype=torch.float64)
    heat = torch.tensor([d.temperature for d in draws], dtype=torch.float64, device=logits.device)
    on_mps = logits.device.type == "mps"
    scores = (logits.cpu() if on_mps else logits).double() / (heat.cpu() if on_mps else heat).unsqueeze(1)
    points = points.to(scores.device)
    scores -= scores.amax(dim=-1, keepdim=True)
    weights = scores.exp_()
    if draws[0].top_p >= 1.0:
        return _invert(weights, points).tolist()
    ordered, order = weights.sort(dim=-1, descending=True, stable=True)
    before = ordered.cumsum(dim=-1) - ordered
    nucleus = torch.tensor([d.top_p for d in draws], dtype=torch.float64, device=scores.device).unsqueeze(1)
    ordered.masked_fill_(before >= nucleus * ordered.sum(dim=-1, keepdim=True), 0.0)
    return order.gather(1, _invert(ordered, points).unsqueeze(1)).squeeze(1).tolist()


def _invert(weights: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Return for each row the index at which the cumulative weights pass the row's point of their total."""
    cumulative = weights.cumsum(dim=-1)
    targets = (points * cumulative[:, -1]).unsqueeze(1)
    found = torch.searchsorted(cumulative, targets, right=True).squeeze(1)
    beyond = (found >= weights.shape[1]).nonzero().squeeze(1)
    for row in beyond.tolist():  # a point so close to 1 that rounding takes it past the end
        found[row] = weights[row].nonzero().max()
    return found
