"""Scoring all choices of a question in one pass.

Concept: the choices' token sequences form a trie, packed behind the prompt's last row; a trie row sees the prompt and
its ancestors. Row 0 is the prompt's last token. The probability of a choice is the product of its tokens' probabilities,
each read from the row before it, and of ending after its last one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class ChoiceTrie:
    """Choices as a trie without its root; parents come before children.

    ``parents[i]`` is -1 for a first token; ``depths[i]`` counts from 0; ``ends[c]`` is the node of choice c's last token.
    """

    tokens: tuple[int, ...]
    parents: tuple[int, ...]
    depths: tuple[int, ...]
    ends: tuple[int, ...]

    def mask(self) -> torch.Tensor:
        """Return nodes x nodes booleans: whether the row node sees the column node (itself and its ancestors)."""
        n = len(self.tokens)
        seen = torch.eye(n, dtype=torch.bool)
        for i, parent in enumerate(self.parents):
            if parent >= 0:
                seen[i] |= seen[parent]
        return seen


def build_trie(choices: Sequence[Sequence[int]]) -> ChoiceTrie:
    """Return the trie of token sequences, none of them empty."""
    index: dict[tuple[int, int], int] = {}
    tokens: list[int] = []
    parents: list[int] = []
    depths: list[int] = []
    ends: list[int] = []
    for choice in choices:
        node = -1
        for depth, token in enumerate(choice):
            if (node, token) not in index:
                index[node, token] = len(tokens)
                tokens.append(token)
                parents.append(node)
                depths.append(depth)
            node = index[node, token]
        ends.append(node)
    return ChoiceTrie(tuple(tokens), tuple(parents), tuple(depths), tuple(ends))


def choice_log_probabilities(trie: ChoiceTrie, logits: torch.Tensor, ending: Sequence[int]) -> list[float]:
    """Return each choice's natural log probability, ending included unless ``ending`` is empty.

    ``logits`` is (1 + nodes) x vocabulary: the prompt's last row, then the trie's; ``ending`` lists the token ids that
    end an answer, whose probabilities are added.
    """
    logits = logits.double()
    norm = torch.logsumexp(logits, dim=-1)
    before = torch.tensor([parent + 1 for parent in trie.parents], device=logits.device)
    taken = logits[before, torch.tensor(trie.tokens, device=logits.device)] - norm[before]
    steps, ends = taken.tolist(), [0.0] * len(logits)
    if ending:
        ends = (torch.logsumexp(logits[:, torch.tensor(list(ending), device=logits.device)], dim=-1) - norm).tolist()
    totals: list[float] = []
    for i, parent in enumerate(trie.parents):
        totals.append(steps[i] + (totals[parent] if parent >= 0 else 0.0))
    return [totals[node] + ends[node + 1] for node in trie.ends]


def normalised(log_probabilities: Sequence[float]) -> tuple[tuple[float, ...], float]:
    """Return probabilities that sum to one, and the mass they had before."""
    top = max(log_probabilities)
    weights = [math.exp(lp - top) for lp in log_probabilities]
    total = math.fsum(weights)
    mass = min(1.0, math.exp(top) * total) if top > -math.inf else 0.0
    return tuple(w / total for w in weights), mass
