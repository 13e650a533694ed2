"""The work of a training process: rows and base in, an adapter out.

Concept: everything before the first step is a function of the stage, so that a process that takes up a checkpoint stands
where the one before stood. Invariant: the adapter's folder appears whole or not at all, and only if its weights differ
from those that training began with.
"""

from __future__ import annotations

import copy
import json
import logging
import math
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, set_seed

from influence_cli.api import (
    InfluenceError,
    TrainingOutcome,
    TrainingPair,
    TrainingRow,
    derive_seed,
    sync_file,
    sync_folder,
    write_whole,
)
from influence_trl import trainers
from influence_trl.failures import NotANumberError, StoppedError
from influence_trl.mixing import mixed_pairs, mixed_rows
from influence_trl.models import compute_dtype, load_model, load_prompts, on_gpu
from influence_trl.options import TrainingOptions
from influence_trl.probing import log_probabilities, mean_of_learnt
from influence_trl.rows import Learnt, by_length, encode_pairs, encode_rows, in_order, read_rows
from influence_trl.stage import AFTER, BEFORE, MARK, WEIGHTS, Stage, StageFolder, digest_of
from influence_trl.tokens import Sequence

_log = logging.getLogger(__name__)

Told = Callable[[float, str], None]


def train(stage: Stage, options: TrainingOptions, told: Told, stopping: Callable[[], bool]) -> TrainingOutcome | None:
    """Return what came of a stage; None on all processes but the first.

    Raises StoppedError where ``stopping`` asked for the end, after a checkpoint; NotANumberError; InfluenceError.
    """
    folder = StageFolder(stage.job.folder)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    told(0.0, "reading rows")
    prompts = load_prompts(stage, options)
    learnt = _learnt(stage, options, prompts)
    told(0.01, "loading the model")
    model = load_model(stage, options)
    kind = _KINDS[stage.algorithm]
    common = _arguments(stage, options, folder)
    items = _arranged(learnt, stage, options, common)
    trainer = kind(model, prompts.tokenizer, items, options, common)
    follower = _Follower(told, stopping)
    trainer.add_callback(follower)
    told(0.02, "measuring the desirable replies")
    first = trainer.accelerator.is_main_process
    begin = _weights(trainer) if first else {}
    probe = _probe_rows(learnt, stage, options)
    whole = not (trainer.is_fsdp_enabled or (trainer.is_deepspeed_enabled and _zero3(trainer)))
    before = log_probabilities(trainer, probe, stage.micro_batch) if whole else []
    if stage.algorithm == "rloo":
        trainers.remember(trainer, items, log_probabilities(trainer, items, stage.micro_batch))
    _run(trainer, folder, follower)
    told(AFTER, "measuring again")
    after = log_probabilities(trainer, probe, stage.micro_batch) if whole else []
    end = _state(trainer)
    moved = mean_of_learnt(probe, after) - mean_of_learnt(probe, before) if whole else None
    if not first:
        return None
    if _same(begin, end) or moved == 0.0:
        raise InfluenceError(
            "Training changed nothing: the weights and the probability of the desirable replies are as before.",
            hint="Raise learning_rate; below a certain size, steps vanish in rounding.",
        )
    _save(trainer, end, folder, stage.job.base)
    return TrainingOutcome(
        adapter=str(folder.adapter),
        digest=digest_of(folder.adapter),
        rows=learnt.rows,
        steps=trainer.state.global_step,
        tokens=options.epochs * _tokens(learnt),
        losses=tuple(follower.losses(trainer)),
        seconds=follower.seconds,
        truncated=learnt.truncated,
        dropped=learnt.dropped,
        moved=moved,
    )


_KINDS: dict[str, Callable[..., Any]] = {
    "expert-iteration": trainers.sft_trainer,
    "kto": trainers.kto_trainer,
    "dpo": trainers.dpo_trainer,
    "rloo": trainers.policy_trainer,
}


def _learnt(stage: Stage, options: TrainingOptions, prompts: Any) -> Learnt:
    """Return what is learnt, mixed-in preferences included; InfluenceError if it does not suffice."""
    name, job = stage.algorithm, stage.job
    if name == "dpo":
        pairs = read_rows(job.rows, TrainingPair)
        pairs += mixed_pairs(options, len(pairs), job.seed)
        learnt = encode_pairs(pairs, prompts, options.max_length)
    else:
        rows = read_rows(job.rows, TrainingRow)
        if name == "rloo" and options.mix is not None:
            raise InfluenceError("A preference data set has no rewards for rloo.", hint="Leave out mix.")
        rows += mixed_rows(options, len(rows), job.seed, both_sides=name == "kto")
        learnt = encode_rows(
            rows, prompts, options.max_length, by_turn=name in ("kto", "rloo"), keep_reward=name == "rloo"
        )
    if not learnt.sequences and not learnt.pairs:
        raise InfluenceError(
            f"There is nothing to learn: {learnt.dropped} of {learnt.dropped + learnt.rows} rows could not be learnt.",
            hint="Give more conversations, or look into training.log for why rows were left out.",
        )
    if name == "kto" and len({s.desirable for s in learnt.sequences}) < 2:
        raise InfluenceError(
            "KTO needs desirable and undesirable replies; there are only those of one kind.",
            hint="Select best and worst, or train by expert-iteration.",
        )
    if name == "rloo" and all(s.reward == 0.0 for s in learnt.sequences):
        raise InfluenceError("All conversations were rated alike: a policy gradient has nothing to go by.")
    return learnt


def _arranged(learnt: Learnt, stage: Stage, options: TrainingOptions, common: dict[str, Any]) -> list[Any]:
    """Return sequences or pairs in the order in which they are learnt."""
    if learnt.pairs:
        pairs = in_order(learnt.pairs, stage.job.seed, options.epochs)
        return by_length(pairs, options.batch, lambda pair: max(len(s.ids) for s in pair))
    sequences = in_order(learnt.sequences, stage.job.seed, options.epochs)
    if stage.algorithm == "kto":
        return sequences
    sequences = by_length(sequences, options.batch, lambda s: len(s.ids))
    at_once = common["per_device_train_batch_size"] * _world()
    if _world() > 1 and len(sequences) % at_once:
        # Processes get equal shares; rows without a loss fill up the last, where rows would else be learnt twice.
        shortest = min(sequences, key=lambda s: len(s.ids))
        filler = Sequence(shortest.ids, (False,) * len(shortest.ids), group=shortest.group)
        sequences += [filler] * (-len(sequences) % at_once)
    return sequences


def _arguments(stage: Stage, options: TrainingOptions, folder: StageFolder) -> dict[str, Any]:
    """Return the arguments that all of TRL's trainers take."""
    each = options.batch // _world()
    if each * _world() != options.batch:
        raise InfluenceError(f"A batch of {options.batch} cannot be shared evenly by {_world()} processes.")
    least = 2 if stage.algorithm == "kto" else 1
    sizes = [size for size in range(least, min(each, max(stage.micro_batch, least)) + 1) if each % size == 0]
    if not sizes:
        raise InfluenceError(
            f"KTO estimates a divergence from neighbours and needs two rows at once; a batch of {options.batch} over "
            f"{_world()} processes leaves {each}.",
            hint="Raise batch.",
        )
    bf16 = compute_dtype(options) is torch.bfloat16
    checkpointing = options.gradient_checkpointing
    return {
        "output_dir": str(folder.checkpoints),
        "per_device_train_batch_size": sizes[-1],
        "gradient_accumulation_steps": each // sizes[-1],
        "num_train_epochs": 1,
        "train_sampling_strategy": "sequential",
        "learning_rate": options.learning_rate * options.lr_decay**stage.job.iteration,
        "lr_scheduler_type": "constant",
        "weight_decay": options.weight_decay,
        "max_grad_norm": options.max_grad_norm,
        "optim": "adamw_torch_fused",
        "bf16": bf16,
        "gradient_checkpointing": on_gpu(options) if checkpointing is None else checkpointing,
        "use_cpu": not on_gpu(options),
        "dataloader_pin_memory": on_gpu(options),
        "save_strategy": "steps",
        "save_steps": options.checkpoint_steps,
        "save_total_limit": 2,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "report_to": "none",
        "disable_tqdm": True,
        "seed": derive_seed(stage.job.seed, "training") % 2**31,
        "ddp_find_unused_parameters": False,
    }


def _probe_rows(learnt: Learnt, stage: Stage, options: TrainingOptions) -> list[Sequence]:
    """Return some of the desirable sequences, drawn by the seed; of all, where none is called desirable."""
    everything = [chosen for chosen, _ in learnt.pairs] or learnt.sequences
    good = [s for s in everything if s.desirable is not False]
    return in_order(good or everything, derive_seed(stage.job.seed, "probe"), 1)[: options.probe_rows]


def _tokens(learnt: Learnt) -> int:
    pairs = sum(sum(s.learnt) for pair in learnt.pairs for s in pair)
    return pairs + sum(sum(s.learnt) for s in learnt.sequences)


def _run(trainer: Any, folder: StageFolder, follower: _Follower) -> None:
    """Train to the end, from the newest whole checkpoint if there is one."""
    set_seed(trainer.args.seed)
    resumed = folder.whole_checkpoint() if _world() == 1 else _agreed_checkpoint(trainer, folder)
    if resumed is not None:
        _log.info("Training goes on from %s.", resumed.name)
        follower.earlier = float(json.loads((resumed / MARK).read_text())["seconds"])
    follower.start()
    trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
    follower.stop()
    if follower.stopped:
        raise StoppedError


def _agreed_checkpoint(trainer: Any, folder: StageFolder) -> Path | None:
    """Return the newest whole checkpoint, looked for by the first process while the others wait."""
    if trainer.accelerator.is_main_process:
        folder.whole_checkpoint()
    trainer.accelerator.wait_for_everyone()
    return folder.whole_checkpoint()


class _Follower(TrainerCallback):  # type: ignore[misc]
    """Tells progress, marks whole checkpoints, ends on a loss that is no number and when asked to stop."""

    def __init__(self, told: Told, stopping: Callable[[], bool]) -> None:
        self._told = told
        self._stopping = stopping
        self._begun = 0.0
        self.earlier = 0.0
        self.seconds = 0.0
        self.stopped = False

    def start(self) -> None:
        """Begin to measure time."""
        self._begun = time.perf_counter()

    def stop(self) -> None:
        """End measuring."""
        self.seconds = self.earlier + time.perf_counter() - self._begun

    def losses(self, trainer: Any) -> list[float]:
        """Return the loss of each step."""
        return [float(entry["loss"]) for entry in trainer.state.log_history if "loss" in entry]

    def on_step_end(self, _args: Any, state: Any, control: Any, **_: Any) -> None:
        """Ask for a checkpoint and the end, if a signal came; for no extra one at the end: the adapter follows."""
        if state.global_step >= state.max_steps:
            control.should_save = control.should_save and state.global_step % state.save_steps == 0
        elif self._stopping():
            self.stopped = control.should_save = control.should_training_stop = True

    def on_log(self, _args: Any, state: Any, _control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        """Tell the step's loss; NotANumberError if it is none."""
        if not logs or "loss" not in logs:
            return
        loss, norm = float(logs["loss"]), float(logs.get("grad_norm", 0.0))
        if not math.isfinite(loss) or not math.isfinite(norm):
            raise NotANumberError(state.global_step, "loss" if not math.isfinite(loss) else "gradient")
        share = state.global_step / max(state.max_steps, 1)
        words = f"step {state.global_step} of {state.max_steps}, loss {loss:.3f}"
        self._told(BEFORE + share * (AFTER - BEFORE), words)

    def on_save(self, args: Any, state: Any, _control: Any, **_: Any) -> None:
        """Mark the checkpoint just written as whole, once it is on the disk."""
        if not state.is_world_process_zero:
            return
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        _sync_tree(folder)
        seconds = self.earlier + time.perf_counter() - self._begun
        write_whole(folder / MARK, json.dumps({"seconds": seconds}).encode())


def _weights(trainer: Any) -> dict[str, torch.Tensor]:
    """Return a copy of the weights to be trained."""
    from peft import get_peft_model_state_dict

    state = get_peft_model_state_dict(trainer.model, adapter_name="default", save_embedding_layers=False)
    return {name: weight.detach().cpu().clone() for name, weight in state.items()}


def _state(trainer: Any) -> dict[str, torch.Tensor]:
    """Return the trained weights, gathered from all processes where they are spread."""
    if not (trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled):
        return _weights(trainer)
    from peft import get_peft_model_state_dict

    state = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    if not trainer.accelerator.is_main_process:
        return {}
    found = get_peft_model_state_dict(
        trainer.model, state_dict=state, adapter_name="default", save_embedding_layers=False
    )
    return {name: weight.detach().cpu() for name, weight in found.items()}


def _same(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> bool:
    return all(name in before and torch.equal(before[name].float(), weight.float()) for name, weight in after.items())


def _save(trainer: Any, weights: dict[str, torch.Tensor], folder: StageFolder, base: str) -> None:
    """Put the adapter's folder in place, whole."""
    from safetensors.torch import save_file

    made = Path(tempfile.mkdtemp(prefix=".adapter-", dir=folder.path))
    try:
        config = copy.deepcopy(trainer.model.peft_config["default"])
        config.inference_mode, config.base_model_name_or_path = True, base
        config.save_pretrained(str(made))
        save_file({n: weights[n].contiguous() for n in sorted(weights)}, made / WEIGHTS, {"format": "pt"})
        made.chmod(0o755)
        _sync_tree(made)
        old = made.with_name(f"{made.name}-old")
        if folder.adapter.exists():
            folder.adapter.rename(old)
        made.rename(folder.adapter)
        sync_folder(folder.path)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _sync_tree(folder: Path) -> None:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            sync_file(path)
        else:
            sync_folder(path)
    sync_folder(folder)


def _world() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def _zero3(trainer: Any) -> bool:
    plugin = trainer.accelerator.state.deepspeed_plugin
    return plugin is not None and int(plugin.zero_stage) == 3
