"""Does training work? SmolLM2 learns, from ratings alone, what a scripted rater likes; on people it never learnt from.

The rater's optimum is known (``environments/small-talk/rater.yaml``: ask something, in at most 40 words), so that the
headroom is: 10 less the first rating. Three arms: expert iteration, KTO, and a control that is expert iteration on
conversations chosen at random. An agent whose every conversation is at the optimum has nothing left to learn from: its
run ends there, and counts with what its held-out people said last. Each arm and seed is a run of ``influence train``; a
run that is there is taken up, so that the benchmark can be stopped and gone on with. ``--quick`` runs one seed.

    python benchmarks/learning.py --work runs/learning --seeds 3
"""

import argparse
import json
import math
import platform
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from influence_cli.scoring.statistics import difference_interval
from influence_cli.store.reader import RunReader
from influence_cli.store.run_directory import open_run
from influence_cli.training.report import samples, training_figures
from influence_cli.training.rewards import candidates
from influence_cli.training.selection import Candidate

HERE = Path(__file__).resolve().parent
SMALL_TALK = HERE / "environments" / "small-talk"
OPTIMUM = 10.0
TARGET = 0.25
COMMON = {
    "learning_rate": 2e-4, "lr_decay": 1.0, "batch": 4, "micro_batch": 4, "epochs": 2, "max_length": 256,
    "dtype": "float32", "probe_rows": 8, "threads": 2,
}  # fmt: skip
ARMS = {
    "expert-iteration": ("expert-iteration", {}, ()),
    "kto": ("kto", {}, ()),
    "random": ("expert-iteration", {}, ("--random",)),
}
COLOURS = {"expert-iteration": "#1b6ca8", "kto": "#c2571a", "random": "#777777"}


def command(folder: Path, arm: str, seed: int, options: argparse.Namespace) -> list[str]:
    """Return the command line of one run, begun or taken up."""
    base = [sys.executable, "-m", "influence_cli", "train"]
    if (folder / "run.yaml").is_file():
        return [*base, "--resume", str(folder)]
    algorithm, own, more = ARMS[arm]
    settings = [f"--algo-option={key}={value}" for key, value in {**COMMON, **own}.items()]
    return [
        *base, "--env", str(SMALL_TALK), "--model", "scripted:demo", "--agent", "transformers:smollm2",
        "--preference", f"scripted:{SMALL_TALK / 'rater.yaml'}", "--algo", algorithm, *settings, *more, "--no-veto",
        "--iterations", str(options.iterations), "--n", str(options.n), "--samples", "1", "--level", "environment", "--top", options.top,
        "--set", f"cache={options.work / 'answers'}", "--seed", str(seed), "--out", str(folder),
    ]  # fmt: skip


def reached(folder: Path) -> int:
    """Return the last iteration in which the held-out people of a run were asked."""
    with RunReader(open_run(folder)) as run:
        found: int = run.rows("SELECT max(iteration) FROM stage WHERE name = 'evaluate' AND finished IS NOT NULL")[0][0]
    return found


def is_at_the_optimum(folder: Path) -> bool:
    """Return whether the last conversations of a run that were to be learnt from all had the highest reward."""
    directory = open_run(folder)
    with RunReader(directory) as run:
        rated = candidates(run, reached(folder), "train", directory.manifest.config.selection).rated
    return bool(rated) and all(each.reward == OPTIMUM for each in rated)


def heldout(folders: dict[int, Path], iteration: int) -> list[Candidate]:
    """Return the held-out conversations of an iteration, or of the last before it, of all seeds.

    Scenarios of another seed are other ones.
    """
    found = []
    for seed, folder in folders.items():
        directory = open_run(folder)
        with RunReader(directory) as run:
            asked = min(iteration, reached(folder))
            rated = candidates(run, asked, "heldout", directory.manifest.config.selection).rated
        found += [replace(each, environment=f"{each.environment} {seed}") for each in rated]
    return found


def summed_up(folders: dict[int, Path], iterations: int) -> dict:
    """Return an arm's curves by seed, and its rise over all seeds with a 95 % interval."""
    curves = {}
    for seed, folder in folders.items():
        with RunReader(open_run(folder)) as run:
            figures = training_figures(run)
        curves[seed] = [
            {key: row["heldout"]["reward"][key] for key in ("mean", "low", "high", "n")}
            | {"moved": (row["stages"]["train"] or {}).get("moved"), "rows": (row["stages"]["train"] or {}).get("rows")}
            for row in figures
            if row["heldout"]
        ]
    first, last = samples(heldout(folders, 0), heldout(folders, iterations))
    rise = difference_interval(last, first)
    headroom = OPTIMUM - float(first.values.mean())
    return {
        "seeds": curves,
        "first": float(first.values.mean()),
        "last": float(last.values.mean()),
        "rise": {"mean": rise.value, "low": finite(rise.low), "high": finite(rise.high), "units": rise.units},
        "share_of_headroom": rise.value / headroom,
        "reaches_target": rise.value >= TARGET * headroom and rise.low > 0.0,
    }


def finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def draw(arms: dict, path: Path) -> None:
    """Write the curves as SVG: thin lines are seeds, thick ones their means."""
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "learning"
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 3.6))
    for name, arm in arms.items():
        curves = [[point["mean"] for point in curve] for curve in arm["seeds"].values()]
        for curve in curves:
            axes.plot(curve, color=COLOURS[name], linewidth=0.8, alpha=0.5)
        longest = max(map(len, curves))
        curves = [curve + curve[-1:] * (longest - len(curve)) for curve in curves]
        axes.plot(np.mean(curves, axis=0), color=COLOURS[name], linewidth=2.2, label=name, marker="o", markersize=4)
    axes.axhline(OPTIMUM, color="black", linewidth=0.6, linestyle=":")
    axes.set_xlabel("iteration")
    axes.set_ylabel("mean reward on held-out people")
    axes.set_ylim(1, 10.4)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("runs/learning"), help="where the runs are")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--iterations", type=int, default=4)
    parser.add_argument("--n", type=int, default=64, help="training conversations of an iteration")
    parser.add_argument("--top", default="1/8", help="share that is learnt from")
    parser.add_argument("--quick", action="store_true", help="one seed")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "learning.json")
    options = parser.parse_args()
    options.work = options.work.resolve()
    options.work.mkdir(parents=True, exist_ok=True)
    seeds = range(1 if options.quick else options.seeds)
    folders = {arm: {seed: options.work / f"{arm}-{seed}" for seed in seeds} for arm in options.arms}
    for seed in seeds:
        for arm in options.arms:
            print(f"{arm}, seed {seed}", flush=True)
            done = subprocess.run(
                [*command(folders[arm][seed], arm, seed, options), "--json", "--quiet"],
                check=False,
                stdout=subprocess.DEVNULL,
            )
            if done.returncode and not is_at_the_optimum(folders[arm][seed]):
                sys.exit(done.returncode)
    arms = {arm: summed_up(found, options.iterations) for arm, found in folders.items()}
    results = {
        "what": "held-out reward of SmolLM2-135M before and after training on a scripted rater, by arm",
        "date": datetime.now(UTC).date().isoformat(),
        "machine": platform.machine(),
        "optimum": OPTIMUM,
        "target_share_of_headroom": TARGET,
        "settings": {"iterations": options.iterations, "n": options.n, "top": options.top, **COMMON},
        "arms": arms,
    }
    options.out.write_text(json.dumps(results, indent=2) + "\n")
    draw(arms, options.out.with_suffix(".svg"))
    for arm, found in arms.items():
        rise = found["rise"]
        print(
            f"{arm:17} {found['first']:.2f} > {found['last']:.2f}: {rise['mean']:+.2f} ({rise['low']:.2f} to "
            f"{rise['high']:.2f}), {found['share_of_headroom']:.0%} of the headroom"
        )


if __name__ == "__main__":
    main()
