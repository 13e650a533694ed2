"""GGUF files made into ordinary model folders.

transformers reads GGUF but refuses to save what it has read, and dequantises on every load; so the weights are put
into a plain model of the same configuration once, as bfloat16 safetensors, with the file's tokenizer and chat template.
"""

from __future__ import annotations

from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

from influence_cli.api import InfluenceError, report_progress
from influence_transformers.gguf_head import Head, read_head

_MOST_DESCRIBED = 2
"""Tied embeddings stand once in a file and may count twice in a model."""


def convert_gguf(source: Path, folder: Path) -> None:
    """Write the model in a GGUF file to ``folder``; InfluenceError if transformers cannot read it."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging as hf_logging

    what = f"Converting {source.name} (once)"
    report_progress(what, 0.0)
    place, file = str(source.parent), source.name
    verbosity = hf_logging.get_verbosity()
    hf_logging.set_verbosity_error()
    head = read_head(source)
    try:
        config = AutoConfig.from_pretrained(place, gguf_file=file)
        _check_size(config, head)
        tokenizer = AutoTokenizer.from_pretrained(place, gguf_file=file)
        report_progress(what, 0.2)
        with redirect_stderr(StringIO()):  # its bar cannot be switched off otherwise, and ours is shown
            read = AutoModelForCausalLM.from_pretrained(place, gguf_file=file, dtype=torch.float32)
        report_progress(what, 0.8)
    except InfluenceError:
        raise
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise InfluenceError(f"The file {source} cannot be read as a GGUF model: {lines[0]}") from error
    finally:
        hf_logging.set_verbosity(verbosity)
    config.dtype = torch.bfloat16
    plain = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    plain.load_state_dict(read.state_dict())
    plain.generation_config = read.generation_config
    with redirect_stderr(StringIO()):
        plain.save_pretrained(folder, safe_serialization=True)
    tokenizer.save_pretrained(folder)
    report_progress(what, 1.0)


def _check_size(config: Any, head: Head) -> None:
    """Raise InfluenceError if the model that a file describes is larger than what it holds."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    described = sum(parameter.numel() for parameter in model.parameters())
    if described > _MOST_DESCRIBED * max(head.elements, 1):
        raise InfluenceError(
            f"The GGUF file describes a model of {described:,} parameters and holds {head.elements:,} numbers."
        )
