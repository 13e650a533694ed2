"""How many processes train, and how they share the work: configurations of ``accelerate launch``."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import yaml

from influence_cli.api import InfluenceError
from influence_trl.options import TrainingOptions

PRESETS = ("single", "ddp", "fsdp", "deepspeed-2", "deepspeed-3")
_DISTRIBUTED = {"fsdp": "FSDP", "deepspeed-2": "DEEPSPEED", "deepspeed-3": "DEEPSPEED"}


def render_preset(name: str, processes: int, *, bf16: bool, accumulation: int, max_grad_norm: float) -> str:
    """Return the accelerate configuration of a preset other than ``single``, in YAML.

    Without a GPU too the type is MULTI_GPU: it stands for starting the processes here, for which accelerate's MULTI_CPU
    wants an MPI. That they compute on the CPU, and talk through gloo, is their own doing.
    """
    config: dict[str, Any] = {
        "compute_environment": "LOCAL_MACHINE",
        "distributed_type": _DISTRIBUTED.get(name, "MULTI_GPU"),
        "debug": False,
        "enable_cpu_affinity": False,
        "machine_rank": 0,
        "main_training_function": "main",
        "mixed_precision": "bf16" if bf16 else "no",
        "num_machines": 1,
        "num_processes": processes,
        "rdzv_backend": "static",
        "same_network": True,
        "use_cpu": False,
    }
    if name == "fsdp":
        config["fsdp_config"] = {
            "fsdp_version": 2,
            "fsdp_auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
            "fsdp_cpu_ram_efficient_loading": False,
            "fsdp_offload_params": False,
            "fsdp_reshard_after_forward": True,
            "fsdp_state_dict_type": "FULL_STATE_DICT",
        }
    elif name.startswith("deepspeed"):
        stage = int(name[-1])
        config["deepspeed_config"] = {
            "zero_stage": stage,
            "gradient_accumulation_steps": accumulation,
            "gradient_clipping": max_grad_norm,
            "offload_optimizer_device": "none",
            "offload_param_device": "none",
            "zero3_init_flag": False,
        }
        if stage == 3:
            config["deepspeed_config"]["zero3_save_16bit_model"] = True
    text: str = yaml.safe_dump(config, sort_keys=True)
    return text


def check_launch(options: TrainingOptions) -> None:
    """Raise InfluenceError where what ``launch`` asks for cannot be had here."""
    name = options.launch
    if name not in PRESETS:
        if not Path(name).expanduser().is_file():
            raise InfluenceError(
                f"There is no launch preset or accelerate config file {name!r}.", hint=f"Presets: {', '.join(PRESETS)}."
            )
        read_config(Path(name).expanduser())
    if name.startswith("deepspeed") and importlib.util.find_spec("deepspeed") is None:
        raise InfluenceError(
            f"The preset {name} needs deepspeed, which is not installed.", hint="pip install deepspeed"
        )
    if name == "single" and options.processes not in (None, 1):
        raise InfluenceError("The preset single has one process.", hint="Use launch=ddp for several.")
    if options.quantize is not None and name in ("fsdp", "deepspeed-3"):
        raise InfluenceError(f"A quantised base cannot be spread over processes by {name}.", hint="Use launch=ddp.")
    if name in _DISTRIBUTED and not _gpu(options):
        raise InfluenceError(
            f"The preset {name} spreads a model over GPUs, and none is used here.", hint="On a CPU, use launch=ddp."
        )


def _gpu(options: TrainingOptions) -> bool:
    if options.device == "cpu":
        return False
    import torch

    return bool(torch.cuda.is_available())


def read_config(path: Path) -> dict[str, Any]:
    """Return what stands in an accelerate config file; InfluenceError if it is none."""
    try:
        found = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        told = " ".join(str(error).split())
        raise InfluenceError(f"The accelerate config file {path} cannot be read: {told}") from error
    if not isinstance(found, dict) or "distributed_type" not in found:
        raise InfluenceError(
            f"{path} is no accelerate config file: it has no distributed_type.",
            hint="Make one with `accelerate config`.",
        )
    return found


def process_count(options: TrainingOptions, gpus: int) -> int:
    """Return how many processes train."""
    if options.launch == "single":
        return 1
    if options.launch not in PRESETS:
        found = read_config(Path(options.launch).expanduser()).get("num_processes", 1)
        return int(found) if isinstance(found, int) else 1
    return options.processes or gpus or 2
