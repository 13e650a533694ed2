"""Scoring all choices of a question in one pass.

Concept: the choices' trie is packed behind the prompt's last row; a trie row sees the prompt and its ancestors. Row 0 is
the prompt's last token; what a node's token and its ending are worth is read from the rows before and at it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from influence_cli.api import ChoiceTrie, answer_log_probabilities


def seen_nodes(trie: ChoiceTrie) -> torch.Tensor:
    """Return nodes x nodes booleans: whether the row node sees the column node (itself and its ancestors)."""
    seen = torch.eye(len(trie.tokens), dtype=torch.bool)
    for node, parent in enumerate(trie.parents):
        if parent >= 0:
            seen[node] |= seen[parent]
    return seen


def choice_log_probabilities(trie: ChoiceTrie, logits: torch.Tensor, ending: Sequence[int]) -> list[float]:
    """Return each choice's natural log probability, ending included unless ``ending`` is empty.

    ``logits`` is (1 + nodes) x vocabulary: the prompt's last row, then the trie's; ``ending`` lists the token ids that
    end an answer, whose probabilities are added.
    """
    logits = logits.double()
    norm = torch.logsumexp(logits, dim=-1)
    before = torch.tensor([parent + 1 for parent in trie.parents], device=logits.device)
    taken = logits[before, torch.tensor(trie.tokens, device=logits.device)] - norm[before]
    ends = [0.0] * len(trie.tokens)
    if ending:
        allowed = torch.tensor(list(ending), device=logits.device)
        ends = (torch.logsumexp(logits[1:, allowed], dim=-1) - norm[1:]).tolist()
    return answer_log_probabilities(trie, taken.tolist(), ends)
