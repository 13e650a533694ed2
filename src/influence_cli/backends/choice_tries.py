"""Closed questions answered exactly, for backends that can read the probability of any token.

Concept: the choices' token sequences form a trie; node ``i`` stands for the answer so far, the root (row 0 wherever rows
are counted) for none. Whoever computes gives, for every node, the log-probability of its token after its parent and that
of an answer ending after it. Invariant: the probability of a choice is the product over all its tokens and of ending
after the last one, so that "1" and "10" are told apart for every tokenizer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from influence_cli.schemas.requests import Distribution, Usage


@dataclass(frozen=True)
class ChoiceTrie:
    """Choices as a trie without its root; parents come before children.

    ``parents[i]`` is -1 for a first token; ``depths[i]`` counts from 0; ``ends[c]`` is the node of choice c's last token.
    """

    tokens: tuple[int, ...]
    parents: tuple[int, ...]
    depths: tuple[int, ...]
    ends: tuple[int, ...]

    def path(self, node: int) -> list[int]:
        """Return the tokens from the root to ``node``; none for -1, the root."""
        found: list[int] = []
        while node >= 0:
            found.append(self.tokens[node])
            node = self.parents[node]
        return found[::-1]


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


def answer_log_probabilities(trie: ChoiceTrie, steps: Sequence[float], endings: Sequence[float]) -> list[float]:
    """Return each choice's natural log-probability as a whole answer.

    ``steps[i]`` is that of node i's token after its parent, ``endings[i]`` that of an answer ending after node i.
    """
    totals: list[float] = []
    for step, parent in zip(steps, trie.parents, strict=True):
        totals.append(step + (totals[parent] if parent >= 0 else 0.0))
    return [totals[node] + endings[node] for node in trie.ends]


def normalised(log_probabilities: Sequence[float]) -> tuple[tuple[float, ...], float]:
    """Return probabilities that sum to one, and the mass they had before."""
    top = max(log_probabilities)
    weights = [math.exp(lp - top) for lp in log_probabilities]
    total = math.fsum(weights)
    mass = min(1.0, math.exp(top) * total) if top > -math.inf else 0.0
    return tuple(w / total for w in weights), mass


def exact_distribution(choices: Sequence[str], log_probabilities: Sequence[float], usage: Usage) -> Distribution:
    """Return the distribution over ``choices`` whose whole answers have these log-probabilities."""
    probabilities, mass = normalised(log_probabilities)
    return Distribution(choices=tuple(choices), probabilities=probabilities, mass=mass, method="exact", usage=usage)
