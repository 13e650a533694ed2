"""Settings of the algorithms; the defaults are those of the published project (arXiv 2411.02306), as far as it has them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from influence_cli.api import Frozen


class TrainingOptions(Frozen):
    """How LoRA weights are trained, whatever the loss (``--algo-option key=value``)."""

    lora_r: int = Field(default=16, ge=1, description="Rank of the LoRA matrices.")
    lora_alpha: int = Field(default=32, ge=1, description="Their scale: alpha / sqrt(r) with rslora, else alpha / r.")
    lora_dropout: float = Field(
        default=0.1, ge=0.0, lt=1.0, description="Dropout before them (not for kto, dpo, rloo)."
    )
    rslora: bool = Field(default=True, description="Scale by the square root of the rank.")
    target_modules: tuple[str, ...] = Field(
        default=(),
        description="Names of the layers that get LoRA; none: q k v o gate up down, or what a model has in their place.",
    )
    learning_rate: float = Field(default=2e-5, gt=0.0, description="Of AdamW in the first iteration, constant in one.")
    lr_decay: float = Field(default=0.9, gt=0.0, le=1.0, description="What it is multiplied by from one to the next.")
    weight_decay: float = Field(default=0.0, ge=0.0, description="Of AdamW.")
    max_grad_norm: float = Field(default=1.0, gt=0.0, description="Longer gradients are scaled to this length.")
    batch: int = Field(default=16, ge=1, description="Rows (or pairs) of one optimiser step, over all processes.")
    micro_batch: int = Field(default=4, ge=1, description="Most of them computed at once by one process.")
    epochs: int = Field(default=1, ge=1, description="How often each row is learnt.")
    max_length: int = Field(
        default=4096, ge=16, description="Longest sequence in tokens; the beginning of others is cut."
    )
    gradient_checkpointing: bool | None = Field(
        default=None, description="Less memory for a third more time; default: on a GPU."
    )
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto", description="Of the base weights and of computing; auto: bfloat16 on a GPU that has it."
    )
    quantize: Literal["4bit", "8bit"] | None = Field(
        default=None, description="Load the base quantised with bitsandbytes; needs a GPU."
    )
    device: Literal["auto", "cpu"] = Field(default="auto", description="auto takes a GPU where one is there.")
    threads: int | None = Field(
        default=None, ge=1, description="CPU threads of a process; default: torch's own choice."
    )
    launch: str = Field(
        default="single",
        description="single, ddp, fsdp, deepspeed-2, deepspeed-3, or the path of an accelerate config file.",
    )
    processes: int | None = Field(
        default=None, ge=1, description="Processes of a preset; default: one a GPU, else two."
    )
    checkpoint_steps: int = Field(default=25, ge=1, description="Optimiser steps between checkpoints.")
    mix: str | None = Field(
        default=None,
        description="Preferences to mix in: hh-rlhf, pku-saferlhf, a data set of the hub, or a .jsonl or .parquet file.",
    )
    mix_fraction: float = Field(default=0.5, gt=0.0, lt=1.0, description="Share of them in what is learnt.")
    probe_rows: int = Field(
        default=16, ge=1, description="Desirable rows on which the change of log-probability is measured."
    )
    trust_remote_code: bool = Field(default=False, description="Run Python code that comes with the model. Dangerous.")


class ExpertIterationOptions(TrainingOptions):
    """Imitation of the best conversations."""


class KtoOptions(TrainingOptions):
    """Kahneman-Tversky optimisation of single replies."""

    beta: float = Field(default=0.1, gt=0.0, description="How far the model may move from the reference; larger: less.")
    desirable_weight: float = Field(default=1.0, gt=0.0, description="Weight of the loss of desirable replies.")
    undesirable_weight: float | None = Field(
        default=None, gt=0.0, description="Of undesirable ones; default: by target_ratio."
    )
    target_ratio: float = Field(
        default=1.05,
        gt=0.0,
        description="Weight of all desirable replies together over that of all undesirable ones.",
    )


class DpoOptions(TrainingOptions):
    """Direct preference optimisation of pairs."""

    beta: float = Field(default=0.1, gt=0.0, description="How far the model may move from the reference; larger: less.")


class RlooOptions(TrainingOptions):
    """Policy gradient with a leave-one-out baseline."""

    clip: float = Field(
        default=0.2, gt=0.0, lt=1.0, description="How far a token's probability may move and still pay."
    )
