"""Training throughput: our expert-iteration stage against a bare TRL script on the same rows.

    python benchmarks/training.py --rounds 3 --out benchmarks/results/training.json

Both train SmolLM2-135M (in float32 on the processor; with ``--gpu`` in bfloat16, ``--model`` names a folder of another model) with the same LoRA, batch, length and number of threads, on the same conversations: ours as
``influence train`` does (in this process, the stage's own function), the bare one as TRL's documentation shows
(``SFTTrainer`` on conversational rows, prompt and completion, in a random order of its own; it learns the line feed after each
reply, too, which the agent never generates). The last losses differ, since they are of other rows, after other draws. Tokens are those of the rows without padding.
Seconds are those of ``Trainer.train`` on both sides, checkpoints off: of the clock, and of the processor, which a busy machine
disturbs less. The measurements alternate, and the order of the two turns from round to round; on a GPU each side trains on a
few rows first, unmeasured, since kernels that are compiled once for a machine would count for whichever side is first there.
The figures are written after each round. The defaults, 8 rows of some
150 tokens in one step of two micro-batches, take a minute of processor time for each measurement, loading included.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent


def make_rows(count: int) -> list[dict]:
    """Return conversations of several lengths, the last reply learnt, deterministic."""
    import random

    draw = random.Random(7)
    words = (
        "the a we you walk talk sleep work rest morning night friend worry plan kind slow good small new old".split()
    )
    text = lambda low, high: " ".join(draw.choice(words) for _ in range(draw.randint(low, high)))  # noqa: E731
    rows = []
    for number in range(count):
        said = [("system", text(20, 40))]
        for _ in range(draw.randint(1, 3)):
            said += [("user", text(5, 30)), ("assistant", text(10, 60))]
        messages = [{"role": role, "content": content} for role, content in said]
        rows.append(
            {
                "episode_id": number,
                "environment": "bench",
                "scenario": "talk",
                "initial_state": str(number),
                "sample": 0,
                "turn": len(messages) // 2,
                "messages": messages,
                "learnt": [len(messages) - 1],
                "reward": 1.0,
                "desirable": True,
            }
        )
    return rows


SETTINGS = {"micro_batch": 4, "batch": 8, "max_length": 4096, "lora_r": 16, "lora_alpha": 32, "lora_dropout": 0.1}


def watch_training() -> dict[str, float]:
    """Return what will hold the seconds of the next ``Trainer.train``, by the clock and of the processor."""
    from transformers import Trainer

    found: dict[str, float] = {}
    train = Trainer.train

    def timed(self: Trainer, *args: object, **kwargs: object) -> object:
        wall, cpu = time.perf_counter(), time.process_time()
        try:
            return train(self, *args, **kwargs)
        finally:
            found.update(seconds=time.perf_counter() - wall, cpu=time.process_time() - cpu)

    Trainer.train = timed
    return found


def ours(rows: Path, args: argparse.Namespace) -> dict:
    """Train with our stage; return its seconds, and those of the whole process after imports."""
    from influence_cli.api import TrainingJob
    from influence_trl.options import ExpertIterationOptions
    from influence_trl.stage import Stage, StageFolder
    from influence_trl.training import train

    options = ExpertIterationOptions(
        **SETTINGS,
        threads=args.threads,
        checkpoint_steps=10_000,
        device="auto" if args.gpu else "cpu",
        gradient_checkpointing=False,
        probe_rows=1,
    )
    with tempfile.TemporaryDirectory() as folder:
        job = TrainingJob(
            iteration=0, base=f"transformers:{args.model or 'smollm2'}", rows=str(rows), folder=folder, seed=1
        )
        stage = Stage(
            algorithm="expert-iteration",
            options=options.model_dump(mode="json"),
            job=job,
            model=str(folder_of(args)),
            micro_batch=options.micro_batch,
            fingerprint="bench",
        )
        StageFolder(folder).prepare(stage)
        found = watch_training()
        begun = time.perf_counter()
        outcome = train(stage, options, lambda *_: None, lambda: False)
        return {**found, "whole": time.perf_counter() - begun, "loss": outcome.losses[-1]}


def bare(rows: Path, args: argparse.Namespace) -> dict:
    """Train with TRL alone, as its documentation shows."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    torch.set_num_threads(args.threads)
    folder = folder_of(args)
    read = [json.loads(line) for line in rows.read_text().splitlines()]
    data = Dataset.from_list([{"prompt": r["messages"][:-1], "completion": r["messages"][-1:]} for r in read])
    found = watch_training()
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as out:
        config = SFTConfig(
            output_dir=out,
            per_device_train_batch_size=SETTINGS["micro_batch"],
            gradient_accumulation_steps=SETTINGS["batch"] // SETTINGS["micro_batch"],
            max_length=SETTINGS["max_length"],
            num_train_epochs=1,
            learning_rate=2e-5,
            lr_scheduler_type="constant",
            gradient_checkpointing=False,
            bf16=args.gpu,
            use_cpu=not args.gpu,
            save_strategy="no",
            report_to="none",
            logging_steps=1,
            disable_tqdm=True,
            dataloader_pin_memory=args.gpu,
        )
        lora = LoraConfig(
            r=16,
            lora_alpha=32,
            lora_dropout=0.1,
            use_rslora=True,
            target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
            task_type="CAUSAL_LM",
        )
        trainer = SFTTrainer(
            model=AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16 if args.gpu else torch.float32),
            args=config,
            train_dataset=data,
            processing_class=AutoTokenizer.from_pretrained(folder),
            peft_config=lora,
        )
        trainer.train()
        losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
        return {**found, "whole": time.perf_counter() - begun, "loss": losses[-1]}


def tokens(rows: Path, args: argparse.Namespace) -> int:
    """Return how many tokens the rows have, without padding."""
    from transformers import AutoTokenizer

    from influence_cli.api import Prompts, TrainingRow
    from influence_trl.rows import read_rows
    from influence_trl.tokens import encode_row

    tokenizer = AutoTokenizer.from_pretrained(folder_of(args))
    prompts = Prompts(tokenizer, [tokenizer.eos_token_id], "smollm2")
    return sum(len(s.ids) for row in read_rows(str(rows), TrainingRow) for s in encode_row(row, prompts))


def folder_of(args: argparse.Namespace) -> Path:
    """Return the folder of the model that learns."""
    if args.model:
        return args.model
    from influence_cli.api import model_folder

    return model_folder("transformers:smollm2")


def measured(side: str, rows: Path, args: argparse.Namespace) -> dict:
    """Return one side's measurement, in a process of its own."""
    command = [
        sys.executable,
        str(HERE / "training.py"),
        "--side",
        side,
        "--rows",
        str(rows),
        "--threads",
        str(args.threads),
        *(["--gpu"] if args.gpu else []),
        *(["--model", str(args.model)] if args.model else []),
    ]
    env = {
        **os.environ,
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "OMP_NUM_THREADS": str(args.threads),
        "TOKENIZERS_PARALLELISM": "false",
    }
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    if done.returncode:
        raise SystemExit(f"{side} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Measure by turns, and write what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", choices=["ours", "bare", "tokens"])
    parser.add_argument("--rows")
    parser.add_argument("--gpu", action="store_true", help="train in bfloat16 on a GPU")
    parser.add_argument("--model", type=Path, help="folder of the model; default: the embedded one")
    parser.add_argument("--count", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", default=str(HERE / "results" / "training.json"))
    args = parser.parse_args()
    if args.side:
        print(json.dumps({"ours": ours, "bare": bare, "tokens": tokens}[args.side](Path(args.rows), args)))
        return
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "rows.jsonl"
        rows.write_text("\n".join(map(json.dumps, make_rows(args.count))))
        count = int(measured("tokens", rows, args))
        if args.gpu:
            few = Path(folder) / "few.jsonl"
            few.write_text("\n".join(map(json.dumps, make_rows(SETTINGS["batch"]))))
            for side in ("ours", "bare"):
                measured(side, few, args)
        results: dict[str, list[dict]] = {"ours": [], "bare": []}
        for number in range(args.rounds):
            for side in ("ours", "bare") if number % 2 == 0 else ("bare", "ours"):
                results[side].append(measured(side, rows, args))
                print(side, results[side][-1], file=sys.stderr)
            found = report(results, count, args)
            Path(args.out).write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


def report(results: dict[str, list[dict]], count: int, args: argparse.Namespace) -> dict:
    """Return the figures of the rounds that are done."""
    import torch
    import transformers
    import trl

    rates = {side: [count / run["seconds"] for run in runs] for side, runs in results.items()}
    ratios = [a / b for a, b in zip(rates["ours"], rates["bare"], strict=True)]
    work = {side: statistics.median(run["cpu"] for run in runs) for side, runs in results.items()}
    return {
        "what": "tokens a second of training proper, expert-iteration stage against a bare TRL script",
        "model": str(args.model or "SmolLM2-135M-Instruct"),
        "on": f"{torch.cuda.get_device_name()}, bfloat16" if args.gpu else "CPU, float32",
        "rows": args.count,
        "tokens": count,
        "threads": args.threads,
        "settings": SETTINGS,
        "versions": {"trl": trl.__version__, "transformers": transformers.__version__, "torch": torch.__version__},
        "tokens_per_second": {side: [round(rate, 1) for rate in found] for side, found in rates.items()},
        "median": {side: round(statistics.median(found), 1) for side, found in rates.items()},
        "ratio_by_round": [round(ratio, 3) for ratio in ratios],
        "processor_seconds": {side: [round(run["cpu"], 1) for run in runs] for side, runs in results.items()},
        "ratio_of_tokens_a_processor_second": round(work["bare"] / work["ours"], 3),
        "ratio": round(statistics.median(rates["ours"]) / statistics.median(rates["bare"]), 3),
        "seconds_with_loading_and_measuring": {
            side: [round(run["whole"], 1) for run in runs] for side, runs in results.items()
        },
        "last_loss": {side: [round(run["loss"], 4) for run in runs] for side, runs in results.items()},
    }


if __name__ == "__main__":
    main()
