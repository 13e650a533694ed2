"""The local backend on a GPU: Llama-shaped models of 1B and 8B parameters with random weights made on the device.

Nothing is downloaded but the embedded model's tokenizer. Reported: conversations a minute through ``influence``'s own
simulation (therapy, replies of one forced length), prefill and decode tokens a second of the engine, memory, and what
share that is of the chip's measured bf16 matrix peak (prefill) and of its measured memory bandwidth (decode); beside it
what ``generate`` decodes in one static batch of as many sequences, on the same chip. ``--ways`` compares how passes are
computed: from tables with small passes played back (what is used where it serves), tables alone, a kernel call for each
part. ``--check`` looks first whether greedy replies in float32 are those of ``generate``, 50 prompts in one company.
``--device cpu --sizes tiny --ways calls`` tries the script itself where there is no GPU.
"""

import argparse
import asyncio
import json
import subprocess
import tempfile
import time
from concurrent.futures import Future, wait
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

from influence_cli.backends.names import parse_model_name
from influence_cli.environments.loading import load_environment
from influence_cli.schemas.configs import SamplingOverrides, SimulationConfig
from influence_cli.simulation.calls import Run
from influence_cli.simulation.estimate import conversations_in_cache
from influence_cli.simulation.models import RoleModel
from influence_cli.simulation.runner import Runner, start_tally
from influence_cli.store.writer import RunWriter
from influence_transformers.backend import TransformersBackend
from influence_transformers.engine import tabled
from influence_transformers.engine.sampling import Draws
from influence_transformers.engine.sequences import Sequence, TextTask
from influence_transformers.engines import Registry, give_memory_back, start_engine
from influence_transformers.fusing import fuse_norms
from influence_transformers.loading import LoadedModel
from influence_transformers.options import TransformersOptions
from local import THERAPY, endless_therapy, model_folder

HERE = Path(__file__).resolve().parent
SHAPES = {
    "tiny": {"hidden_size": 128, "intermediate_size": 352, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2},
    "1b": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8},
    "8b": {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8},
}  # fmt: skip
WAYS = ("played", "tables", "calls")
ROLES = ("agent", "user", "preference", "transition", "veto")


def synchronised(device):
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter()


def peaks(device, dtype):
    """Return the device's matrix peak in FLOP/s and its memory bandwidth in bytes/s, as measured."""
    n = 8192 if device.startswith("cuda") else 512
    a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
    big = torch.empty((1 << 30) if device.startswith("cuda") else (1 << 26), device=device, dtype=torch.uint8)
    best = []
    for work, amount in ((lambda: a @ b, 2 * n**3), (big.clone, 2 * big.numel())):
        work()
        times = []
        for _ in range(10):
            started = synchronised(device)
            work()
            times.append(synchronised(device) - started)
        best.append(amount / min(times))
    return best


def make_model(size, device, dtype, tokenizer, **more):
    rope = {"rope_type": "default", "rope_theta": 500_000.0}
    config = LlamaConfig(
        **SHAPES[size], vocab_size=len(tokenizer), max_position_embeddings=8192, rope_parameters=rope, **more
    )
    with torch.device(device):
        torch.set_default_dtype(dtype)
        model = AutoModelForCausalLM.from_config(config).eval()
        torch.set_default_dtype(torch.float32)
    return model


def run(engine, prompts, tokens, temperature=1.0):
    """Return the replies to ``prompts``, each of ``tokens`` tokens."""
    futures = []
    for number, ids in enumerate(prompts):
        future: Future = engine.worker.submit(
            lambda future, ids=ids, number=number: Sequence(
                ids, TextTask(Draws(temperature, 1.0, number), tokens, tokens), None, future
            )
        )
        futures.append(future)
    wait(futures)
    return [future.result() for future in futures]


def timed(engine, prompts, tokens):
    """Return the seconds that the engine takes for ``prompts``, each with ``tokens`` generated tokens."""
    started = time.perf_counter()
    run(engine, prompts, tokens)
    return time.perf_counter() - started


def speeds(engine, sequences, prompt, tokens):
    """Return prefill and decode tokens a second, no prompt sharing anything with another."""
    rng = np.random.default_rng(0)

    def fresh():
        return rng.integers(100, 40_000, (sequences, prompt)).astype(np.int32)

    for _ in range(2):
        timed(engine, fresh(), tokens + 1)  # kernels are compiled, passes recorded
    first = min(timed(engine, fresh(), 1) for _ in range(2))
    return sequences * prompt / first, sequences * tokens / max(timed(engine, fresh(), tokens + 1) - first, 1e-9)


def converse(environment, folder, options, conversations, turns, forced):
    """Have the conversations through the program's own runner, as many together as it would have.

    Return the tally, that number, and the seconds they took.
    """
    config = SimulationConfig(n=conversations, turns=turns, concurrency=conversations)
    backend = TransformersBackend(str(folder), options)
    sampling = SamplingOverrides(max_tokens=forced, min_tokens=forced)
    models = {role: RoleModel(parse_model_name("transformers:random"), backend, sampling, None, 0.0) for role in ROLES}
    together = min(conversations, conversations_in_cache([environment], config, models) or conversations)
    config = config.model_copy(update={"concurrency": together})
    tally = start_tally([environment], config)

    async def run():
        with tempfile.TemporaryDirectory() as where, RunWriter(Path(where) / "run.db", "gpu") as writer:
            started = time.perf_counter()
            await Runner(Run(config, models, writer, tally), [environment], writer).simulate()
            return time.perf_counter() - started

    return tally, together, asyncio.run(run())


def start(model, tokenizer, way, name):
    """Return an engine that computes passes in one of ``WAYS``, and its options."""
    options = TransformersOptions(record=way == "played", engine="packed")
    kinds, tabled.DEVICES = tabled.DEVICES, () if way == "calls" else tabled.DEVICES
    engine = start_engine(LoadedModel(model, tokenizer, 8192, (tokenizer.eos_token_id,)), options, name)
    tabled.DEVICES = kinds
    return engine, options


def static_batch(model, sequences, prompt, tokens):
    """Return what ``generate`` decodes a second in one batch of prompts of one length, with the model's own attention."""
    model.set_attn_implementation("sdpa")
    ids = torch.randint(100, 40_000, (sequences, prompt), device=model.device)
    common = {
        "attention_mask": torch.ones_like(ids),
        "do_sample": True,
        "top_k": 0,
        "pad_token_id": 0,
        "eos_token_id": None,
    }
    seconds = []
    for count in (2, 1, tokens + 1):
        started = synchronised(str(model.device))
        with torch.inference_mode():
            model.generate(ids, max_new_tokens=count, min_new_tokens=count, **common)
        seconds.append(synchronised(str(model.device)) - started)
    return sequences * tokens / max(seconds[2] - seconds[1], 1e-9)


def check(device, tokenizer, way):
    """Return how many of 50 greedy replies in float32, computed in one company, are those of ``generate``."""
    model = make_model("tiny", device, torch.float32, tokenizer, initializer_range=0.3)
    rng = np.random.default_rng(1)
    shared = rng.integers(100, 40_000, 300)
    prompts = [
        np.concatenate([shared[: rng.integers(0, 300)], rng.integers(100, 40_000, rng.integers(1, 90))])
        for _ in range(50)
    ]
    expected = []
    for ids in prompts:
        with torch.inference_mode():
            found = model.generate(
                torch.tensor(ids[None], device=device),
                max_new_tokens=24,
                do_sample=False,
                pad_token_id=0,
                eos_token_id=None,
            )
        expected.append(found[0, len(ids) :].tolist())
    fuse_norms(model)
    engine, _ = start(model, tokenizer, way, "check")
    same = 0
    for _ in range(3):  # the second time sizes are recorded, the third they are played back; prefixes are cached
        answers = run(engine, [ids.astype(np.int32) for ids in prompts], 24, temperature=0.0)
        same = sum(list(answer.tokens) == wanted for answer, wanted in zip(answers, expected, strict=True))
    engine.worker.close()
    return same


def bench(size, model, tokenizer, way, arguments, chip, environment, scratch):
    device, dtype = arguments.device, model.dtype
    if device.startswith("cuda"):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    engine, options = start(model, tokenizer, way, size)
    prefill, decode = speeds(engine, arguments.sequences, arguments.prompt, arguments.tokens)
    folder = scratch / size
    model.config.save_pretrained(folder)
    Registry.shared.engines[folder, options.model_dump_json()] = engine
    engine.users += 1
    numbers = sum(p.numel() for p in model.parameters())
    working = numbers - sum(e.weight.numel() for e in (model.get_input_embeddings(), model.get_output_embeddings()))
    cache = (
        2 * model.config.num_hidden_layers * model.config.num_key_value_heads * model.config.head_dim * dtype.itemsize
    )
    step = numbers * dtype.itemsize + arguments.sequences * (arguments.prompt + arguments.tokens / 2) * cache
    common = {
        "model": size, "parameters": numbers, "way": way, "served_by": type(engine.runner).__name__,
        "prefill_tokens_per_s": prefill, "decode_tokens_per_s": decode,
        "share_of_matrix_peak_at_prefill": 2 * working * prefill / chip[0],
        "share_of_bandwidth_at_decode": step * decode / arguments.sequences / chip[1],
    }  # fmt: skip
    for count in map(int, arguments.conversations.split(",")):
        engine.steps.tree.evict(0)  # nothing read for an earlier figure is found again
        yield {**common, **conversing(environment, folder, options, count, arguments)}
    Registry.shared.engines.clear()
    engine.worker.close()


def conversing(environment, folder, options, count, arguments):
    """Return the figures of so many conversations; of none, nothing."""
    if not count:
        return {}
    tally, together, seconds = converse(environment, folder, options, count, arguments.turns, arguments.forced)
    roles = tally.roles.values()
    prompt, cached = sum(r.prompt_tokens for r in roles), sum(r.cached_tokens for r in roles)
    return {
        "conversations": count, "together": together, "turns": arguments.turns, "seconds": seconds,
        "conversations_per_minute": 60 * count / seconds, "failed": tally.failed,
        "prompt_tokens": prompt, "computed_tokens": prompt - cached, "prefill_share": 1 - cached / prompt,
        "completion_tokens": sum(r.completion_tokens for r in roles),
        "peak_gb": (torch.cuda.max_memory_allocated() if arguments.device.startswith("cuda") else 0) / 1e9,
    }  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--sizes", default="1b,8b")
    parser.add_argument("--conversations", default="32,256", help="how many, one run each; 0: none")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--forced", type=int, default=64)
    parser.add_argument("--sequences", type=int, default=64)
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--ways", default="played", help=f"of {', '.join(WAYS)}")
    parser.add_argument("--check", action="store_true", help="compare greedy replies with those of generate")
    parser.add_argument("--tokenizer", type=Path, help="folder of the tokenizer; default: the embedded model's")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if arguments.device.startswith("cuda") and not torch.cuda.is_available():
        raise SystemExit("No GPU is visible to torch; --device cpu --sizes tiny tries the script itself.")
    chip = peaks(arguments.device, torch.bfloat16 if arguments.device.startswith("cuda") else torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(arguments.tokenizer or model_folder())
    cuda = arguments.device.startswith("cuda")
    ways = arguments.ways.split(",")
    equal = {way: check(arguments.device, tokenizer, way) for way in ways} if arguments.check else None
    print(json.dumps({"of 50 greedy replies those of generate": equal}), flush=True)
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        environment = load_environment(endless_therapy(Path(scratch))) if THERAPY.exists() else None
        for size in arguments.sizes.split(","):
            model = make_model(size, arguments.device, torch.bfloat16 if cuda else torch.float32, tokenizer)
            batch = static_batch(model, arguments.sequences, arguments.prompt, arguments.tokens)
            fuse_norms(model)
            for way in ways:
                for row in bench(size, model, tokenizer, way, arguments, chip, environment, Path(scratch)):
                    rows.append({**row, "generate_decode_tokens_per_s": batch})
                    print(json.dumps(rows[-1]), flush=True)
            del model
            give_memory_back()
    name = torch.cuda.get_device_name() if arguments.device.startswith("cuda") else arguments.device
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=HERE, capture_output=True, text=True, check=False)
    about = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "commit": commit.stdout.strip(), "hardware": name,
             "torch": torch.__version__, "transformers": transformers.__version__, "sequences": arguments.sequences,
             "prompt": arguments.prompt, "tokens": arguments.tokens, "forced": arguments.forced,
             "greedy_replies_of_generate_in_50": equal, "matrix_peak_tflops": chip[0] / 1e12, "bandwidth_gb_s": chip[1] / 1e9}  # fmt: skip
    print(json.dumps(about))
    if arguments.out:
        arguments.out.write_text(json.dumps({**about, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
