"""Drawing tokens.

Invariant: a draw depends on a row's logits, its sampling settings and its own uniform number, never on other rows.
Tokens are drawn by inverting the cumulative distribution, summed in float64, in the order of token ids (of probability,
with ``top_p``), so that a rounding difference of the logits moves a draw only when the uniform number lies that close
to a boundary.
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
    _last: float = field(init=False, default=0.0)
    _fresh: bool = field(init=False, default=False)
    _again: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        self._stream = random.Random(self.seed)

    def next(self) -> float:
        """Return the next uniform number in [0, 1)."""
        if not self._again:
            self._last = self._stream.random()
        self._again, self._fresh = False, True
        return self._last

    def begin(self) -> None:
        """Say that what is drawn from now on can be undone."""
        self._fresh = False

    def undo(self) -> None:
        """Give out once more what was drawn since :meth:`begin`, if anything was; it came to nothing."""
        self._again = self._again or self._fresh


def draw_tokens(logits: torch.Tensor, draws: Sequence[Draws]) -> list[int]:
    """Return a token for each row of ``logits`` (float32, rows x vocabulary); where that fails, nothing has been drawn."""
    for draw in draws:
        draw.begin()
    try:
        return _drawn(logits, draws)
    except BaseException:
        for draw in draws:
            draw.undo()
        raise


def _drawn(logits: torch.Tensor, draws: Sequence[Draws]) -> list[int]:
    if logits.device.type == "mps":  # it has no float64
        logits = logits.cpu()
    chosen = [0] * len(draws)
    greedy = [i for i, d in enumerate(draws) if d.temperature <= 0.0]
    whole = [i for i, d in enumerate(draws) if d.temperature > 0.0 and d.top_p >= 1.0]
    nucleus = [i for i, d in enumerate(draws) if d.temperature > 0.0 and d.top_p < 1.0]
    for rows, how in ((greedy, _greatest), (whole, _draw), (nucleus, _draw_nucleus)):
        if rows:
            part = logits if len(rows) == len(logits) else logits[rows]
            for row, token in zip(rows, how(part, [draws[i] for i in rows]), strict=True):
                chosen[row] = token
    return chosen


_BLOCK = 128
"""Tokens whose weights are summed before the block that a point falls into is looked for."""


def _greatest(logits: torch.Tensor, draws: list[Draws]) -> list[int]:  # noqa: ARG001 - one of three ways
    tokens: list[int] = logits.argmax(dim=-1).tolist()
    return tokens


def _draw(logits: torch.Tensor, draws: list[Draws]) -> list[int]:
    """Return draws from all tokens: first a block of them, then one within it."""
    weights = _weights(logits, draws)
    missing = -weights.shape[1] % _BLOCK
    if missing:
        weights = torch.nn.functional.pad(weights, (0, missing))
    blocks = weights.view(len(draws), -1, _BLOCK)
    sums = blocks.sum(dim=-1).double()
    targets = _points(draws, logits.device) * sums.sum(dim=-1)
    picked, before = _invert(sums, targets)
    within = blocks[torch.arange(len(draws), device=logits.device), picked].double()
    inside = (targets - before).clamp_min(0.0)
    found: list[int] = (picked * _BLOCK + _invert(within, inside)[0]).tolist()
    return found


def _draw_nucleus(logits: torch.Tensor, draws: list[Draws]) -> list[int]:
    """Return draws from the likeliest tokens that make up the share ``top_p``, in the order of their probability."""
    ordered, order = _weights(logits, draws).double().sort(dim=-1, descending=True, stable=True)
    cumulative = ordered.cumsum(dim=-1)
    nucleus = torch.tensor([d.top_p for d in draws], dtype=torch.float64, device=logits.device).unsqueeze(1)
    ordered.masked_fill_(cumulative - ordered >= nucleus * cumulative[:, -1:], 0.0)
    targets = _points(draws, logits.device) * ordered.cumsum(dim=-1)[:, -1]  # sum() divides a row that is alone
    found: list[int] = order.gather(1, _invert(ordered, targets)[0].unsqueeze(1)).squeeze(1).tolist()
    return found


def _weights(logits: torch.Tensor, draws: list[Draws]) -> torch.Tensor:
    """Return the tokens' weights, the likeliest one's 1."""
    weights = logits - logits.amax(dim=-1, keepdim=True)
    if any(d.temperature != 1.0 for d in draws):
        weights /= torch.tensor([d.temperature for d in draws], device=logits.device).unsqueeze(1)
    return weights.exp_()


def _points(draws: list[Draws], device: torch.device) -> torch.Tensor:
    return torch.tensor([d.next() for d in draws], dtype=torch.float64, device=device)


def _invert(weights: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return for each row the index at which the cumulative weights pass the target, and the sum before it."""
    cumulative = weights.cumsum(dim=-1)
    found = torch.searchsorted(cumulative, targets.unsqueeze(1), right=True).squeeze(1)
    beyond = (found >= weights.shape[1]).nonzero().squeeze(1)
    for row in beyond.tolist():  # a target so close to the total that rounding takes it past the end
        found[row] = weights[row].nonzero().max()
    before = (cumulative - weights).gather(1, found.unsqueeze(1)).squeeze(1)
    return found, before
