"""Whole conversations with a model on this machine: ``influence simulate`` against a lock-step loop over ``generate``.

Whole processes that take turns of some seconds, so that a busy machine slows both alike, on the same environment, model
and token counts: replies of one forced length and conversations that cannot end early, then natural lengths and
endings. A server with the same model joins with ``--peer NAME=URL`` (llama.cpp, SGLang), driven by the same command;
vLLM with ``--vllm PYTHON``, the Python of an environment that has it and this program (``nox -s vllm`` makes one): its
engine in process, and a server that is started.
``--decode`` compares decoding alone.
"""

import argparse
import json
import os
import platform
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from interleaving import take_turns

HERE = Path(__file__).resolve().parent
THERAPY = HERE.parent / "environments" / "therapy"


def endless_therapy(folder):
    """Return a copy of the therapy environment in which nobody leaves before the last turn."""
    copy = folder / "therapy"
    shutil.copytree(THERAPY, copy)
    main = copy / "environment.yaml"
    text = main.read_text()
    head, _, tail = text.partition("states:\n")
    rest = tail[tail.index("\nmetrics:") :]
    states = 'states:\n  talking:\n    description: On and on.\n    transitions: {"yes": talking, "no": talking}\n'
    main.write_text(head + states + rest)
    return copy


def our_command(environment, arguments, forced, turns, extra, folder, python=sys.executable):
    command = [python, "-m", "influence_cli", "simulate", "--env", str(environment), "--quiet", "--json"]
    command += ["--n", str(arguments.conversations), "--turns", str(turns), "--out", f"{folder}/run", *extra]
    for name in ("max_tokens", "min_tokens") if forced else ():
        command += ["--set", f"default.sampling.{name}={forced}"]
    return command


def our_figures(process):
    summary = json.loads(process.printed())
    roles = summary["roles"].values()
    prompt, cached = (sum(role[key] for role in roles) for key in ("prompt_tokens", "cached_tokens"))
    return {"work_s": process.active(summary["seconds"]), "turns": summary["turns"], "prompt_tokens": prompt,
            "computed_tokens": prompt - cached, "completion_tokens": sum(r["completion_tokens"] for r in roles),
            "first_call_s": process.active_until(first_call(summary["run"])), "peak_mb": process.peak_mb,
            "cpu_s": process.cpu_s, "dropped": summary["speculations_dropped"]}  # fmt: skip


def first_call(run):
    """Return when the first answer of a model was stored: what comes before it is start, loading and one call."""
    with closing(sqlite3.connect(f"file:{run}/run.db?mode=ro", uri=True)) as db:
        return db.execute("SELECT min(ended) FROM call").fetchone()[0]


def lock_step_command(environment, arguments, forced, turns):
    command = [sys.executable, str(HERE / "lock_step.py"), "--env", str(environment), "--folder", model_folder()]
    command += ["--conversations", str(arguments.conversations), "--turns", str(turns), "--forced", str(forced)]
    return [*command, "--dtype", arguments.dtype]


def lock_step_figures(process):
    found = json.loads(process.printed().rpartition("RESULT ")[2])
    return {**found, "work_s": process.active(found["work_s"]), "cpu_s": process.cpu_s}


def model_folder():
    command = [
        sys.executable,
        "-c",
        "from influence_transformers.resolution import resolve_model as r; print(r('smollm2', None))",
    ]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def rounds(arguments, folder):
    """Yield one row a client, kind of length and number of turns."""
    kinds = {"forced": (endless_therapy(folder), arguments.forced), "natural": (THERAPY, 0)}
    for kind in arguments.kinds.split(","):
        environment, forced = kinds[kind]
        for turns in map(int, arguments.turns.split(",")):
            for number in range(arguments.rounds):
                for name, row in clients(arguments, environment, forced, turns):
                    yield {"client": name, "lengths": kind, "turns_asked": turns, "round": number, **row,
                           "conversations_per_minute": 60 * arguments.conversations / row["work_s"]}  # fmt: skip


def clients(arguments, environment, forced, turns):
    """Yield the name and figures of each client: influence and the loop in turn, a slice each; then servers, alone."""
    with tempfile.TemporaryDirectory() as folder:
        extra = ["--model", "transformers:smollm2", "-o", f"dtype={arguments.dtype}"]
        extra += [part for option in arguments.option for part in ("-o", option)]
        commands = [our_command(environment, arguments, forced, turns, extra, folder)]
        if not arguments.skip_lock_step:
            commands.append(lock_step_command(environment, arguments, forced, turns))
        mine, *others = take_turns(commands)
        yield "influence", our_figures(mine)
        for other in others:
            yield "lock-step", lock_step_figures(other)
    for entry in arguments.peer:
        name, _, url = entry.partition("=")
        with tempfile.TemporaryDirectory() as folder:
            extra = ["--model", f"openai:{arguments.peer_model}", "--base-url", url]
            (process,) = take_turns([our_command(environment, arguments, forced, turns, extra, folder)])
            yield name, our_figures(process)
    yield from vllm_clients(arguments, environment, forced, turns)


def vllm_clients(arguments, environment, forced, turns):
    """Yield the name and figures of vLLM, alone on the machine: its engine in process, then a server of ours."""
    common = [f"dtype={arguments.dtype}", f"threads={os.cpu_count()}", "cache_mib=1280", "block_size=32"]
    common += ["context_length=4096", "adapters=false", *arguments.vllm_option]
    ways = {"vllm": (arguments.vllm, []), "vllm-server": (sys.executable, ["server=start", f"python={arguments.vllm}"])}
    for name, (python, more) in ways.items() if arguments.vllm else ():
        with tempfile.TemporaryDirectory() as folder:
            extra = ["--model", "vllm:smollm2"]
            for option in (*common, *more):
                extra += ["-o", option]
            (process,) = take_turns([our_command(environment, arguments, forced, turns, extra, folder, python)])
            yield name, our_figures(process)


def summarise(rows):
    lines = []
    for kind, turns in dict.fromkeys((row["lengths"], row["turns_asked"]) for row in rows):
        here = [row for row in rows if (row["lengths"], row["turns_asked"]) == (kind, turns)]
        mine = [row for row in here if row["client"] == "influence"]
        best = mine[0]
        told = [f"{kind} lengths, {turns} turns: {best['conversations_per_minute']:.1f} conversations/min"]
        told.append(
            f"prefill share {best['computed_tokens'] / best['prompt_tokens']:.2f}, peak {best['peak_mb']:.0f} MB, "
            f"first call stored {best['first_call_s']:.1f} s after the start"
        )
        for name in dict.fromkeys(row["client"] for row in here if row["client"] != "influence"):
            ratios = [b["work_s"] / b["turns"] / (a["work_s"] / a["turns"])
                      for a, b in zip(mine, (r for r in here if r["client"] == name), strict=True)]  # fmt: skip
            told.append(f"x{sorted(ratios)[len(ratios) // 2]:.2f} the turns per second of {name}")
            other = next(row for row in here if row["client"] == name)
            # every client reads the same prompts, but some count one several times over
            share = other["computed_tokens"] / other["turns"] / (best["prompt_tokens"] / best["turns"])
            told[-1] += f" ({other['conversations_per_minute']:.1f} conversations/min, prefill share {share:.2f})"
        lines.append("; ".join(told))
    return lines


def decode(sequences, tokens):
    """Return decode tokens a second of our engine and of ``generate`` on one static batch; and prefill tokens a second.

    Each computes on a thread of its own: OpenMP's threads of the one would slow those of the other down.
    """
    import time
    from concurrent.futures import Future, ThreadPoolExecutor, wait

    import numpy as np
    import torch

    from influence_transformers.engine.sampling import Draws
    from influence_transformers.engine.sequences import Sequence, TextTask
    from influence_transformers.engines import Registry
    from influence_transformers.options import TransformersOptions
    from lock_step import LockStep

    def apart(work):
        with ThreadPoolExecutor(1) as passing:
            return passing.submit(work).result()

    folder = model_folder()
    reference = apart(lambda: LockStep(folder, sequences))
    rng = np.random.default_rng(0)
    prompts = rng.integers(1000, 40_000, (sequences, 256)).astype(np.int32)

    def static(count):
        ids = torch.tensor(prompts, dtype=torch.long)
        started = time.perf_counter()
        with torch.inference_mode():
            reference.model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=True, top_k=0,
                                     max_new_tokens=count, min_new_tokens=count, pad_token_id=0)  # fmt: skip
        return time.perf_counter() - started

    options = TransformersOptions()
    engine = Registry.shared.acquire(Path(folder), options, "smollm2")

    def packed(count, salt):
        futures = []
        started = time.perf_counter()
        for i, row in enumerate(prompts):
            ids = row.copy()
            ids[0] = 100 + 40 * salt + i % 40

            def make(future, ids=ids, i=i):
                return Sequence(ids, TextTask(Draws(1.0, 1.0, i), count, count), None, future)

            future: Future = engine.worker.submit(make)
            futures.append(future)
        wait(futures)
        return time.perf_counter() - started

    apart(lambda: static(2)), packed(2, 0)
    rows = []
    for number in range(2):
        one, many = apart(lambda: (static(1), static(1 + tokens)))
        first, rest = packed(1, 3 * number + 1), packed(1 + tokens, 3 * number + 2)
        work = sequences * tokens
        rows.append({"round": number, "generate_decode": work / (many - one), "engine_decode": work / (rest - first),
                     "generate_prefill": prompts.size / one, "engine_prefill": prompts.size / first})  # fmt: skip
    Registry.shared.release(engine)
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--conversations", type=int, default=32)
    parser.add_argument("--turns", default="3", help="comma-separated")
    parser.add_argument("--forced", type=int, default=64, help="tokens of every reply where lengths are forced")
    parser.add_argument("--kinds", default="forced,natural")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--skip-lock-step", action="store_true")
    parser.add_argument("--option", action="append", default=[], help="one more of ours, as in cache_mib=1280")
    parser.add_argument("--peer", action="append", default=[], help="NAME=URL of a server with the same model")
    parser.add_argument("--peer-model", default="smollm2")
    parser.add_argument("--vllm", metavar="PYTHON", help="the Python of an environment with vLLM and this program")
    parser.add_argument("--vllm-option", action="append", default=[], help="one more of vLLM, as in eager=true")
    parser.add_argument("--dtype", default="float32", help="float32 or bfloat16, for both")
    parser.add_argument("--decode", action="store_true", help="decoding alone, 32 sequences")
    parser.add_argument("--quick", action="store_true", help="4 conversations, 1 turn, forced lengths")
    parser.add_argument("--out", type=Path, help="where to keep the figures")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.conversations, arguments.turns, arguments.kinds, arguments.forced = 4, "1", "forced", 8
    if arguments.decode:
        rows = decode(32, 32)
        ratios = sorted(row["engine_decode"] / row["generate_decode"] for row in rows)
        summary = [
            f"decode, 32 sequences: x{sum(ratios) / len(ratios):.2f} the tokens per second of one static batch of generate"
        ]
    else:
        rows = []
        with tempfile.TemporaryDirectory() as folder:
            for row in rounds(arguments, Path(folder)):
                rows.append(row)
                print(
                    " ".join(f"{k}={v:.2f}" if isinstance(v, float) else f"{k}={v}" for k, v in row.items()), flush=True
                )
        summary = summarise(rows)
    for line in (*map(str, rows if arguments.decode else ()), *summary):
        print(line)
    if arguments.out:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=HERE, capture_output=True, text=True, check=False)
        about = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "commit": commit.stdout.strip(),
                 "machine": platform.processor() or platform.machine(), "cores": os.cpu_count(),
                 "python": platform.python_version(), "dtype": arguments.dtype}  # fmt: skip
        arguments.out.write_text(json.dumps({**about, "summary": summary, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
