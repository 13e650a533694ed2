"""From our options to vLLM's own arguments: for its engine in this process, and for the command line of a server.

Invariant: one table says both, by the names of vLLM's ``EngineArgs``, so that a server computes what the engine in this
process would.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from influence_cli.api import InfluenceError, model_folder
from influence_vllm.options import IN_PROCESS, MIB, VllmOptions

CHOICE_TOKENS = 20
"""Likeliest tokens that a server shows; what the client of OpenAI-compatible servers asks for."""


def model_source(name: str) -> str:
    """Return what vLLM loads for a model's name: a folder with safetensors, or a name on the hub.

    ``smollm2`` and GGUF files are fetched and converted as for the backend ``transformers``; InfluenceError for a path
    that leads nowhere.
    """
    path = Path(name).expanduser()
    if name == "smollm2" or path.suffix == ".gguf":
        return str(model_folder(f"transformers:{name}"))
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise InfluenceError(f"The folder {path} holds no model: it has no config.json.")
        return str(path.resolve())
    if path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        hint = "A model is smollm2, a hub name, a folder or a .gguf file."
        raise InfluenceError(f"There is no folder {path}.", hint=hint)
    return name


def engine_arguments(source: str, options: VllmOptions, *, on_processor: bool = False) -> dict[str, Any]:
    """Return the arguments by their names in ``EngineArgs``; those that the user named last, so that they win.

    On a processor prompts are read whole: there vLLM ends where it reads a part of one whose request has a seed
    ("CPU Generator does not use offset").
    """
    cache_mib, block_size = options.cache_mib, options.block_size
    if on_processor and options.server == IN_PROCESS:
        cache_mib, block_size = cache_mib or 1280, block_size or 32
    arguments: dict[str, Any] = {
        "model": source,
        "dtype": options.dtype,
        "quantization": options.quantization,
        "revision": options.revision,
        "max_model_len": options.context_length,
        "tensor_parallel_size": options.tensor_parallel,
        "pipeline_parallel_size": options.pipeline_parallel,
        "data_parallel_size": options.data_parallel,
        "gpu_memory_utilization": options.gpu_memory,
        "kv_cache_memory_bytes": cache_mib * MIB if cache_mib else None,
        "kv_cache_dtype": options.cache_dtype,
        "block_size": block_size,
        "max_num_batched_tokens": options.max_rows,
        "max_num_seqs": options.max_running,
        "enforce_eager": options.eager,
        "enable_prefix_caching": True,
        "trust_remote_code": options.trust_remote_code,
        "generation_config": "vllm",
        "logprobs_mode": "raw_logprobs",
        "max_logprobs": CHOICE_TOKENS,
    }
    if options.adapters:
        arguments |= {
            "enable_lora": True,
            "max_loras": options.max_loras,
            "max_cpu_loras": options.max_loras,
            "max_lora_rank": options.max_lora_rank,
        }
    if options.between == "sleep":
        arguments["enable_sleep_mode"] = True
    if on_processor:
        arguments["enable_chunked_prefill"] = False
    arguments = {name: value for name, value in arguments.items() if value is not None}
    return arguments | options.engine_arguments


def serves_processor(python: str) -> bool:
    """Return whether the environment of ``python`` has the build of torch that knows no GPU.

    False also where there is no torch or no such program: starting a server there says what is wrong.
    """
    ask = "from importlib.metadata import version; print(version('torch'))"
    try:
        command = [python, "-c", ask]
        found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)  # noqa: S603 - the user's Python
    except (OSError, subprocess.SubprocessError):
        return False
    return found.stdout.strip().endswith("+cpu") or sys.platform == "darwin"


def serve_command(name: str, arguments: Mapping[str, Any], options: VllmOptions, port: int) -> list[str]:
    """Return the command line of a server that serves ``arguments`` under ``name`` on loopback."""
    source = str(arguments["model"])
    command = [options.python or sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", source]
    command += ["--served-model-name", name, "--host", "127.0.0.1", "--port", str(port)]
    command += ["--enable-prompt-tokens-details", "--disable-uvicorn-access-log"]
    for key, value in arguments.items():
        if key != "model":
            command += _flags(f"--{key.replace('_', '-')}", value)
    return command


def serve_environment(options: VllmOptions, key: str) -> dict[str, str]:
    """Return what a server needs in its environment: its key, loading of adapters, threads; nothing is reported home."""
    environment = {"VLLM_API_KEY": key, "VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "INFO"}
    environment["PYTHONUNBUFFERED"] = "1"
    if options.adapters:
        environment["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] = "1"
    if options.between == "sleep":
        environment["VLLM_SERVER_DEV_MODE"] = "1"
    return environment | process_environment(options)


def process_environment(options: VllmOptions) -> dict[str, str]:
    """Return the variables by which vLLM's processes take so many threads of a processor, and compile nothing."""
    environment: dict[str, str] = {}
    if options.threads is not None:
        environment |= {"OMP_NUM_THREADS": str(options.threads), "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    if options.eager:
        environment["TORCHDYNAMO_DISABLE"] = "1"  # vLLM compiles some small functions even so
    return environment


def _flags(flag: str, value: Any) -> list[str]:
    if isinstance(value, bool):
        return [flag if value else f"--no-{flag[2:]}"]
    if isinstance(value, Mapping):
        return [flag, orjson.dumps(value).decode()]
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [flag, *map(str, value)]
    return [flag, str(value)]
