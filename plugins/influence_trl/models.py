"""The model that is trained: the base, and the LoRA weights on it."""

from __future__ import annotations

import json
import logging
import os
import re
import warnings
from pathlib import Path
from typing import Any

import torch

from influence_cli.api import InfluenceError, Prompts, derive_seed
from influence_trl.attention import pass_over_padding
from influence_trl.options import TrainingOptions
from influence_trl.stage import WEIGHTS, Stage

_log = logging.getLogger(__name__)

_NAMES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_PREFIX = "base_model.model."
_IN_BLOCK = re.compile(r"\.\d+\.")


def load_prompts(stage: Stage, options: TrainingOptions) -> Prompts:
    """Return the chat template and tokenizer of the base, with a pad token.

    Padding is masked in attention and loss, so where a tokenizer has no pad token any token may stand for it.
    """
    from transformers import AutoConfig, AutoTokenizer, GenerationConfig

    common: dict[str, Any] = {"local_files_only": True, "trust_remote_code": options.trust_remote_code}
    try:
        tokenizer = AutoTokenizer.from_pretrained(stage.model, **common)
        config = AutoConfig.from_pretrained(stage.model, **common).get_text_config()
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise _unloadable(stage, error) from error
    try:
        generation: Any = GenerationConfig.from_pretrained(stage.model, local_files_only=True)
    except OSError:
        generation = None
    ends: set[int] = set()
    for source in (generation, config):
        value = getattr(source, "eos_token_id", None)
        ends.update([value] if isinstance(value, int) else value or ())
    prompts = Prompts(tokenizer, sorted(ends), stage.job.base)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(min(prompts.ending))
    return prompts


def load_model(stage: Stage, options: TrainingOptions) -> Any:
    """Return the base with LoRA weights to train: the ones of the iteration before, else new ones drawn from the seed."""
    from peft import LoraConfig, PeftModel, get_peft_model

    base = _load_base(stage, options)
    torch.manual_seed(derive_seed(stage.job.seed, "lora"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers by an older name
        if stage.job.adapter is None:
            config = LoraConfig(
                r=options.lora_r,
                lora_alpha=options.lora_alpha,
                lora_dropout=options.lora_dropout,
                use_rslora=options.rslora,
                target_modules=sorted(target_modules(base, options.target_modules, stage.job.base)),
                task_type="CAUSAL_LM",
            )
            model = get_peft_model(base, config)
        else:
            check_adapter(Path(stage.job.adapter), base, stage.job.base)
            model = PeftModel.from_pretrained(base, stage.job.adapter, is_trainable=True)
    model.peft_config["default"].base_model_name_or_path = stage.model
    return model


def target_modules(base: Any, wanted: tuple[str, ...], name: str) -> set[str]:
    """Return the names of the layers that get LoRA.

    By rule: q k v o gate up down where the model has layers so named; else every linear layer inside its blocks, which
    leaves out embeddings and the output head.
    """
    from transformers.pytorch_utils import Conv1D

    linear = [path for path, m in base.named_modules() if isinstance(m, torch.nn.Linear | Conv1D)]
    last = {path.rpartition(".")[2] for path in linear}
    if wanted:
        absent = sorted(set(wanted) - last)
        if absent:
            raise InfluenceError(
                f"{name} has no linear layer called {', '.join(absent)} (target_modules).",
                hint=f"It has: {', '.join(sorted(last))}.",
            )
        return set(wanted)
    usual = {each for each in _NAMES if each in last}
    found = usual or {path.rpartition(".")[2] for path in linear if _IN_BLOCK.search(path)}
    if not found:
        raise InfluenceError(
            f"{name} has no linear layer that LoRA could train.", hint="Name some with target_modules."
        )
    return found


def check_adapter(folder: Path, base: Any, name: str) -> None:
    """Raise InfluenceError unless the folder holds LoRA weights, in safetensors, each with its place in the base."""
    from safetensors import safe_open

    if not (folder / "adapter_config.json").is_file() or not (folder / WEIGHTS).is_file():
        raise InfluenceError(
            f"{folder} is no adapter: it needs adapter_config.json and {WEIGHTS}.",
            hint="Name a folder that PEFT saved.",
        )
    config = json.loads((folder / "adapter_config.json").read_text())
    if config.get("peft_type") != "LORA":
        raise InfluenceError(f"The adapter {folder} is {config.get('peft_type')}, not LoRA.")
    made_for = str(config.get("base_model_name_or_path") or "an unnamed model")
    stranger = InfluenceError(
        f"The adapter {folder} was trained on {made_for}, not on {name}.", hint="Name that base, or no adapter."
    )
    if ":" in made_for and made_for.partition(":")[2] != name.partition(":")[2]:
        raise stranger
    with safe_open(folder / WEIGHTS, framework="pt") as weights:
        for key in weights.keys():  # noqa: SIM118 - it is no mapping
            owner = key.removeprefix(_PREFIX).partition(".lora_")[0]
            try:
                layer = base.get_submodule(owner)
                # Of a quantised layer only the features tell the shape; its weights are packed.
                shape = {getattr(layer, "in_features", None), getattr(layer, "out_features", None), *layer.weight.shape}
            except AttributeError:
                raise stranger from None
            got = weights.get_slice(key).get_shape()
            fits = {".lora_A.": got[-1] in shape, ".lora_B.": got[0] in shape}
            if not all(right for part, right in fits.items() if part in key):
                raise stranger


def on_gpu(options: TrainingOptions) -> bool:
    """Say whether training runs on a GPU."""
    return options.device == "auto" and torch.cuda.is_available()


def compute_dtype(options: TrainingOptions) -> torch.dtype:
    """Return the type of base weights and of computing."""
    if options.dtype != "auto":
        return torch.float32 if options.dtype == "float32" else torch.bfloat16
    return torch.bfloat16 if on_gpu(options) and torch.cuda.is_bf16_supported() else torch.float32


def _load_base(stage: Stage, options: TrainingOptions) -> Any:
    from transformers import AutoModelForCausalLM

    more: dict[str, Any] = {"trust_remote_code": options.trust_remote_code}
    dtype = compute_dtype(options)
    if options.quantize is not None:
        more["quantization_config"] = _quantisation(options, dtype)
        more["device_map"] = {"": int(os.environ.get("LOCAL_RANK", "0"))}
    try:
        model = AutoModelForCausalLM.from_pretrained(
            stage.model, dtype=dtype, use_safetensors=True, local_files_only=True, **more
        )
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise _unloadable(stage, error) from error
    model.config.use_cache = False
    pass_over_padding(model, gpu=on_gpu(options), dtype=dtype)
    if options.quantize is not None:
        from peft import prepare_model_for_kbit_training

        model = prepare_model_for_kbit_training(
            model, use_gradient_checkpointing=options.gradient_checkpointing is not False
        )
    return model


def _quantisation(options: TrainingOptions, dtype: torch.dtype) -> Any:
    import importlib.util

    if not on_gpu(options):
        raise InfluenceError(
            "A quantised base needs a GPU, and none is used here.", hint="Leave out quantize, or train on a GPU."
        )
    if importlib.util.find_spec("bitsandbytes") is None:
        raise InfluenceError(
            "A quantised base needs bitsandbytes, which is not installed.", hint="pip install 'influence-cli[quantize]'"
        )
    from transformers import BitsAndBytesConfig

    if options.quantize == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


def _unloadable(stage: Stage, error: Exception) -> InfluenceError:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return InfluenceError(
        f"The model {stage.job.base} in {stage.model} cannot be loaded: {lines[0]}",
        hint="It must be a causal language model with safetensors weights and a tokenizer.",
    )
