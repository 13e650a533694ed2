"""TRL's trainers, fed with our own token sequences.

Concept: rows are tokenised, cut and ordered by us, so TRL's preparation of data sets is passed over and its collators
(or ours, where several replies of one sequence are learnt) get ids and masks. The losses of SFT, KTO and DPO are TRL's;
the policy gradient is ours on the same trainer.
"""

from __future__ import annotations

from collections.abc import Sequence as Items
from dataclasses import dataclass
from typing import Any

import torch
from datasets import Dataset
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer, SFTConfig, SFTTrainer
from trl.trainer.utils import disable_dropout_in_model

from influence_trl.options import DpoOptions, KtoOptions, RlooOptions, TrainingOptions
from influence_trl.rows import Pair
from influence_trl.tokens import Sequence


def sft_trainer(
    model: Any, tokenizer: Any, sequences: list[Sequence], options: TrainingOptions, common: dict[str, Any]
) -> Any:
    """Return a trainer of the mean negative log-likelihood of the learnt tokens of a batch."""
    rows = [{"input_ids": list(s.ids), "labels": s.labels} for s in sequences]
    args = SFTConfig(**common, max_length=options.max_length, dataset_kwargs={"skip_prepare_dataset": True})
    return SFTTrainer(model=model, args=args, train_dataset=Dataset.from_list(rows), processing_class=tokenizer)


class PreparedKTOTrainer(KTOTrainer):  # type: ignore[misc]  # TRL is not typed
    """TRL's KTO on rows that are tokens already."""

    def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
        return dataset


def kto_rows(sequences: list[Sequence], micro_batch: int) -> list[dict[str, Any]]:
    """Return rows for TRL's KTO, each with the reply of its neighbour in the micro-batch for the estimate of the KL.

    A last micro-batch of one row takes the reply before it, so that no row is its own neighbour.
    """
    rows = []
    for start in range(0, len(sequences), micro_batch):
        part = sequences[start : start + micro_batch]
        before = part[-1] if len(part) > 1 else sequences[start - 1]
        for sequence in part:
            rows.append(
                {
                    "prompt_ids": sequence.prompt,
                    "completion_ids": sequence.completion,
                    "KL_completion_ids": before.completion,
                    "label": bool(sequence.desirable),
                }
            )
            before = sequence
    return rows


def kto_weights(sequences: Items[Sequence], options: KtoOptions) -> tuple[float, float]:
    """Return the weights of desirable and undesirable losses: their totals stand in ``target_ratio`` to each other.

    With n+ desirable and n- undesirable replies and a desirable weight of 1, the other is n+ / (n- * target_ratio).
    """
    good = sum(s.desirable is True for s in sequences)
    bad = len(sequences) - good
    if options.undesirable_weight is not None or not bad or not good:
        return options.desirable_weight, options.undesirable_weight or 1.0
    return options.desirable_weight, options.desirable_weight * good / (bad * options.target_ratio)


def kto_trainer(
    model: Any, tokenizer: Any, sequences: list[Sequence], options: KtoOptions, common: dict[str, Any]
) -> Any:
    """Return TRL's KTO trainer; its reference is the adapter as it is now."""
    good, bad = kto_weights(sequences, options)
    rows = kto_rows(sequences, common["per_device_train_batch_size"])
    args = KTOConfig(
        **common, max_length=options.max_length, beta=options.beta, desirable_weight=good, undesirable_weight=bad
    )
    return PreparedKTOTrainer(model=model, args=args, train_dataset=Dataset.from_list(rows), processing_class=tokenizer)


class PreparedDPOTrainer(DPOTrainer):  # type: ignore[misc]
    """TRL's DPO on pairs that are tokens already."""

    def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
        return dataset


@dataclass
class PairCollator:
    """Pads pairs: chosen ones first, then rejected ones, with a mask of the tokens that are compared."""

    pad: int

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Return the batch as TRL's DPO loss reads it."""
        ids = [e[f"{side}_ids"] for side in ("chosen", "rejected") for e in examples]
        masks = [e[f"{side}_mask"] for side in ("chosen", "rejected") for e in examples]
        return {
            "input_ids": padded(ids, self.pad),
            "attention_mask": padded([[1] * len(row) for row in ids], 0),
            "completion_mask": padded(masks, 0),
        }


def dpo_trainer(model: Any, tokenizer: Any, pairs: list[Pair], options: DpoOptions, common: dict[str, Any]) -> Any:
    """Return TRL's DPO trainer; its reference is the adapter as it is now."""
    rows = [
        {
            "chosen_ids": list(chosen.ids),
            "chosen_mask": [int(wanted) for wanted in chosen.learnt],
            "rejected_ids": list(rejected.ids),
            "rejected_mask": [int(wanted) for wanted in rejected.learnt],
        }
        for chosen, rejected in pairs
    ]
    args = DPOConfig(**common, max_length=options.max_length, beta=options.beta, remove_unused_columns=False)
    return PreparedDPOTrainer(
        model=model,
        args=args,
        data_collator=PairCollator(tokenizer.pad_token_id),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )


@dataclass
class AdvantageCollator:
    """Pads sequences with their advantage and the log-probabilities that their tokens had at the start."""

    pad: int

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Return the batch as :class:`PolicyGradientTrainer` reads it."""
        ids = [e["input_ids"] for e in examples]
        return {
            "input_ids": padded(ids, self.pad),
            "attention_mask": padded([[1] * len(row) for row in ids], 0),
            "labels": padded([e["labels"] for e in examples], -100),
            "advantages": torch.tensor([e["advantage"] for e in examples]),
            "old": padded([e["old"] for e in examples], 0.0)[:, 1:],
        }


class PolicyGradientTrainer(SFTTrainer):  # type: ignore[misc]
    """The clipped policy gradient on conversations that were had already.

    With the ratio r of a token's probability to the one it had when training began, and the advantage A of its reply: the
    loss is the mean over learnt tokens of -min(r A, clip(r, 1 - c, 1 + c) A).
    """

    clip: float = 0.2

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return the loss of a micro-batch, scaled to the tokens of the whole batch."""
        advantages, old = inputs["advantages"].unsqueeze(1), inputs["old"]
        outputs = model(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            labels=inputs["labels"],
            use_cache=False,
            fused_lm_head=True,
        )
        ratio = (outputs.log_probs - old).exp()
        clipped = ratio.clamp(1.0 - self.clip, 1.0 + self.clip)
        gain = torch.minimum(ratio * advantages, clipped * advantages) * outputs.label_mask
        count = outputs.label_mask.sum() if num_items_in_batch is None else num_items_in_batch
        loss = -gain.sum() / torch.as_tensor(count).clamp(min=1)
        if self.args.average_tokens_across_devices and num_items_in_batch is not None:
            loss = loss * self.accelerator.num_processes
        return (loss, outputs) if return_outputs else loss


def policy_trainer(
    model: Any, tokenizer: Any, sequences: list[Sequence], options: RlooOptions, common: dict[str, Any]
) -> Any:
    """Return a policy-gradient trainer; :func:`remember` must give it the probabilities at the start."""
    disable_dropout_in_model(model)
    args = SFTConfig(
        **common,
        max_length=options.max_length,
        dataset_kwargs={"skip_prepare_dataset": True},
        remove_unused_columns=False,
    )
    trainer = PolicyGradientTrainer(
        model=model,
        args=args,
        data_collator=AdvantageCollator(tokenizer.pad_token_id),
        train_dataset=_policy_rows(sequences, [[0.0] * len(s.ids) for s in sequences]),
        processing_class=tokenizer,
    )
    trainer.clip = options.clip
    return trainer


def remember(trainer: Any, sequences: list[Sequence], old: list[list[float]]) -> None:
    """Give a policy-gradient trainer the log-probability of each token at the start."""
    trainer.train_dataset = _policy_rows(sequences, old)


def _policy_rows(sequences: list[Sequence], old: list[list[float]]) -> Dataset:
    return Dataset.from_list(
        [
            {"input_ids": list(s.ids), "labels": s.labels, "advantage": s.reward, "old": before}
            for s, before in zip(sequences, old, strict=True)
        ]
    )


def padded(rows: list[list[Any]], value: float) -> torch.Tensor:
    """Return rows as one tensor, filled up on the right."""
    longest = max(len(row) for row in rows)
    return torch.tensor([[*row, *[value] * (longest - len(row))] for row in rows])
