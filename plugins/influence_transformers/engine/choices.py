"""Scoring all choices of many questions in one pass.

Concept: the choices' trie is packed behind the prompt's last row; a trie row sees the prompt and its ancestors. Row 0 is
the prompt's last token; what a node's token and its ending are worth is read from the rows before and at it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from influence_cli.api import ChoiceTrie, answer_log_probabilities

_AT_ONCE, _AT_ONCE_ON_CPU = 1 << 23, 1 << 19
"""Logits that are made precise at once: what fits a processor's caches, or fills a GPU."""


def seen_nodes(trie: ChoiceTrie) -> torch.Tensor:
    """Return nodes x nodes booleans: whether the row node sees the column node (itself and its ancestors)."""
    seen = torch.eye(len(trie.tokens), dtype=torch.bool)
    for node, parent in enumerate(trie.parents):
        if parent >= 0:
            seen[node] |= seen[parent]
    return seen


class Question(NamedTuple):
    """A trie whose rows follow the prompt's last one, which is row ``first``; ``ending``: the ids that end an answer."""

    trie: ChoiceTrie
    first: int
    ending: Sequence[int]


_BLOCK = 128
"""Tokens whose weights are summed at once: a longer sum of a row that is alone would be divided among threads."""


def _log_total(logits: torch.Tensor) -> torch.Tensor:
    """Return the logarithm of the sum of each row's exponentials in float64, the same for a row in any company."""
    high = logits.amax(dim=-1, keepdim=True).double()
    weights = torch.nn.functional.pad((logits.double() - high).exp_(), (0, -logits.shape[1] % _BLOCK))
    return high.squeeze(1) + weights.view(len(logits), -1, _BLOCK).sum(dim=-1).sum(dim=-1).log()


def choice_log_probabilities(questions: Sequence[Question], logits: torch.Tensor) -> list[list[float]]:
    """Return each question's choices' natural log probabilities, ending included unless its ``ending`` is empty.

    ``logits`` is rows x vocabulary: for each question the prompt's last row, then one for each node of its trie. The
    probabilities of all tokens that end an answer are added. All questions together take one look at the device.
    """
    device = logits.device
    befores: list[int] = []
    tokens: list[int] = []
    nodes: list[int] = []
    for trie, first, _ in questions:
        befores += [first + 1 + parent for parent in trie.parents]
        tokens += trie.tokens
        nodes += range(first + 1, first + 1 + len(trie.tokens))
    before, node = torch.tensor(befores, device=device), torch.tensor(nodes, device=device)
    rows = torch.tensor(sorted({*befores, *nodes}), device=device)
    at_once = _AT_ONCE_ON_CPU if device.type == "cpu" else _AT_ONCE
    norm = torch.zeros(len(logits), dtype=torch.float64, device=device)
    for part in torch.split(rows, max(1, at_once // logits.shape[1])):
        norm[part] = _log_total(logits[part])
    taken = logits[before, torch.tensor(tokens, device=device)].double() - norm[before]
    endings = {tuple(question.ending) for question in questions} - {()}
    ends = {
        ids: torch.logsumexp(logits[node.unsqueeze(1), torch.tensor(ids, device=device)].double(), dim=-1) - norm[node]
        for ids in endings
    }
    steps, *worth = torch.stack([taken, *ends.values()]).tolist()
    ended = dict(zip(ends, worth, strict=True))
    found, at = [], 0
    for trie, _, ending in questions:
        span = slice(at, at := at + len(trie.tokens))
        last = ended[tuple(ending)][span] if ending else [0.0] * len(trie.tokens)
        found.append(answer_log_probabilities(trie, steps[span], last))
    return found
