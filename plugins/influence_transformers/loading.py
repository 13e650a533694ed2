"""Loading a model: device, data type, and whether attention over segments serves it.

Concept: whether a model can be batched by our engine is found by trial, not by family: a short prompt is computed by the
model's own attention and by ours, in pieces, and the logits must agree.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from influence_cli.api import InfluenceError
from influence_transformers.engine.forward import apart
from influence_transformers.fusing import fuse_norms
from influence_transformers.options import TransformersOptions
from influence_transformers.packing import pack_linears

_log = logging.getLogger(__name__)
_TRIED, _APART = 21, 1e-2
"""Tokens by which packed weights are tried, and by how many standard deviations logits may differ in float32."""
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass
class LoadedModel:
    """A model in memory with its tokenizer; ``context`` is the most tokens of prompt and reply, if the model says."""

    model: Any
    tokenizer: Any
    context: int | None
    end_ids: tuple[int, ...]


def pick_device(wanted: str) -> torch.device:
    """Return the device to use; InfluenceError for one that is not there."""
    if wanted != "auto":
        try:
            device = torch.device(wanted)
            torch.empty(1, device=device)
        except (RuntimeError, AssertionError) as error:
            raise InfluenceError(
                f"The device {wanted!r} cannot be used here.", hint="Leave out -o device=..."
            ) from error
        return device
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def pick_dtype(wanted: str, device: torch.device) -> torch.dtype:
    """Return the data type of weights: as wanted, else float32 on cpu, bfloat16 on cuda if it has it, else float16."""
    if wanted != "auto":
        return _DTYPES[wanted]
    if device.type == "cpu":
        return torch.float32
    if device.type == "cuda" and torch.cuda.is_bf16_supported():
        return torch.bfloat16
    return torch.float16


def load_model(source: Path, options: TransformersOptions, name: str) -> LoadedModel:
    """Return the model in a folder; InfluenceError where it is not one, or not in safetensors."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging as hf_logging

    hf_logging.disable_progress_bar()
    device = pick_device(options.device)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    common: dict[str, Any] = {"local_files_only": True, "trust_remote_code": options.trust_remote_code}
    try:
        config = AutoConfig.from_pretrained(source, **common)
        tokenizer = AutoTokenizer.from_pretrained(source, **common)
        kind = {"config": config, "dtype": pick_dtype(options.dtype, device), **common}
        model = AutoModelForCausalLM.from_pretrained(source, use_safetensors=True, **kind)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise InfluenceError(
            f"The model {name!r} in {source} cannot be loaded: {_first_line(error)}",
            hint="It must be a causal language model with safetensors weights and a tokenizer.",
        ) from error
    model = _ready(model, device)
    packed = device.type == "cpu" and _packed_alike(model, native=options.native)
    if device.type == "cpu" and not packed:
        _log.warning("The weights of %s are left as they are, which is slower: packed they gave other logits.", name)
        del model  # there may be no room for two
        model = _ready(AutoModelForCausalLM.from_pretrained(source, use_safetensors=True, **kind), device)
    fuse_norms(model)
    text = config.get_text_config()
    context = options.context_length or getattr(text, "max_position_embeddings", None)
    return LoadedModel(model, tokenizer, context, _end_ids(model, text))


def _ready(model: Any, device: torch.device) -> Any:
    model.requires_grad_(requires_grad=False)
    return model.to(device).eval()


def _packed_alike(model: Any, *, native: bool) -> bool:
    """Pack a model's linear layers; return whether it still computes what it did.

    A model whose code reads a layer's weight itself does not.
    """

    def logits() -> torch.Tensor:
        with torch.inference_mode():
            found: torch.Tensor = model(input_ids=ids, use_cache=False).logits
        return found.float()

    size = model.config.get_text_config().vocab_size
    ids = torch.tensor([[(5 + 11 * i * i) % size for i in range(_TRIED)]])
    try:
        before = logits()
    except Exception:  # noqa: BLE001 - model code may fail in any way; then nothing is known of it
        return True
    if not pack_linears(model, native=native):
        return True
    return apart(before, logits()) < (_APART if before.dtype == torch.float32 and model.dtype == torch.float32 else 0.5)


def _end_ids(model: Any, config: Any) -> tuple[int, ...]:
    found: set[int] = set()
    for source in (model.generation_config, config):
        value = getattr(source, "eos_token_id", None)
        found.update([value] if isinstance(value, int) else value or ())
    return tuple(sorted(found))


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
