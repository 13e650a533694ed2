"""How likely a model finds given replies."""

from __future__ import annotations

from typing import Any

import torch

from influence_trl.tokens import Sequence
from influence_trl.trainers import padded


def log_probabilities(trainer: Any, sequences: list[Sequence], micro_batch: int) -> list[list[float]]:
    """Return for each sequence the log-probability of each token (0 where it is not learnt), without dropout.

    Every process computes its share; all get the whole.
    """
    from accelerate.utils import gather_object

    share = range(trainer.accelerator.process_index, len(sequences), trainer.accelerator.num_processes)
    model, pad = trainer.model, trainer.processing_class.pad_token_id
    if next(model.parameters()).device != trainer.accelerator.device:
        model.to(trainer.accelerator.device)
    training = model.training
    model.eval()
    found: list[tuple[int, list[float]]] = []
    order = sorted(share, key=lambda at: -len(sequences[at].ids))
    with torch.no_grad(), trainer.accelerator.autocast():
        for start in range(0, len(order), micro_batch):
            part = order[start : start + micro_batch]
            ids = [list(sequences[at].ids) for at in part]
            batch = {
                "input_ids": padded(ids, pad),
                "attention_mask": padded([[1] * len(row) for row in ids], 0),
                "labels": padded([sequences[at].labels for at in part], -100),
            }
            moved = {key: value.to(trainer.accelerator.device) for key, value in batch.items()}
            rows = model(**moved, use_cache=False, fused_lm_head=True).log_probs.float().cpu()
            for at, row in zip(part, rows, strict=True):
                found.append((at, [0.0, *row[: len(sequences[at].ids) - 1].tolist()]))
    model.train(training)
    everything = dict(gather_object(found))
    return [everything[at] for at in range(len(sequences))]


def mean_of_learnt(sequences: list[Sequence], values: list[list[float]]) -> float:
    """Return the mean of the values of all learnt tokens."""
    import math

    count = sum(sum(s.learnt) for s in sequences)
    return math.fsum(math.fsum(row) for row in values) / max(count, 1)
