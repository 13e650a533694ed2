"""A soak: one simulation at full concurrency, whose memory and open files are sampled while a server spoils some answers.

    python benchmarks/soak.py --seconds 600

Only the client is measured, from outside; the mock server and the meter are processes of their own.
"""

from __future__ import annotations

import argparse
import json
import signal
import sqlite3
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

import psutil

from influence_cli.testing.faults import Result, end, start
from influence_cli.testing.server import serve

ROOT = Path(__file__).parent.parent
THERAPY = ROOT / "environments" / "therapy"
CONCURRENCY = 256
SERVER = {"latency": 0.2, "spread": 0.8, "seed": 9}
FAULTS = {"server_error": 0.02, "drop": 0.01, "malformed": 0.01}
EVERY = 2.0
"""Seconds from one sample to the next."""
KEPT = 60
"""Samples that are published."""

Sample = tuple[float, float, int]
"""Seconds since the start, MiB of resident memory, open files."""


def soak(folder: Path, seconds: float) -> dict[str, object]:
    """Return memory and open files of a simulation at full concurrency, sampled over ``seconds``."""
    with serve(**SERVER, faults=FAULTS) as server:
        process = start([
            sys.executable, "-m", "influence_cli", "simulate", "--env", str(THERAPY), "-m", "openai:test-model",
            "--base-url", server.base_url, "--n", "100000", "--samples", "1000", "--concurrency", str(CONCURRENCY),
            "-o", f"initial_concurrency={CONCURRENCY}", "-o", "retry_delay=0.1", "--out", str(folder), "--quiet", "--json",
        ])  # fmt: skip
        samples = sampled(process.pid, seconds)
        process.send_signal(signal.SIGTERM)
        result = Result("simulate", "soak")
        end(process, result, (3,))
        stats = server.stats()
    return {
        "seconds": round(samples[-1][0]),
        "concurrency": CONCURRENCY,
        "requests": stats["requests"],
        "conversations": ended(folder),
        "injected": stats["injected"],
        "repeated": stats["repeated"],
        **figures(samples, seconds),
        "exit_codes": result.exit_codes,
        "problems": result.problems,
    }


def sampled(pid: int, seconds: float) -> list[Sample]:
    """Return what process ``pid`` took, sampled until it ends or the time is up."""
    watched, begun, samples = psutil.Process(pid), time.monotonic(), []
    while (now := time.monotonic() - begun) < seconds:
        try:
            with watched.oneshot():
                samples.append((now, watched.memory_info().rss / 2**20, watched.num_fds()))
        except psutil.Error:
            break
        time.sleep(EVERY)
    return samples


def figures(samples: list[Sample], seconds: float) -> dict[str, object]:
    """Return what ``samples`` come to: after a quarter of the time, and in the second half alone."""
    settled = [sample for sample in samples if sample[0] > seconds / 4]
    late = [sample for sample in samples if sample[0] > seconds / 2]
    step = max(1, len(samples) // KEPT)
    return {
        "memory_mib": {
            "first": round(settled[0][1], 1),
            "half": round(late[0][1], 1),
            "last": round(settled[-1][1], 1),
            "most": round(max(sample[1] for sample in samples), 1),
        },
        "growth_mib_per_minute": round(slope(settled), 2),
        "growth_mib_per_minute_second_half": round(slope(late), 2),
        "open_files": {"least": min(s[2] for s in settled), "most": max(s[2] for s in settled)},
        "samples": [[round(at), round(memory, 1), files] for at, memory, files in samples[::step]],
    }


def slope(samples: list[Sample]) -> float:
    """Return by how many MiB a minute memory grows, by least squares."""
    x, y = [sample[0] / 60 for sample in samples], [sample[1] for sample in samples]
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    return sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / sum((a - mean_x) ** 2 for a in x)


def ended(folder: Path) -> dict[str, int]:
    """Return how many conversations of a run there are, by how they stand."""
    with closing(sqlite3.connect(folder / "run.db")) as database:
        return dict(database.execute("SELECT status, count(*) FROM trajectory GROUP BY status").fetchall())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600.0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak-") as scratch:
        print(json.dumps(soak(Path(scratch) / "run", arguments.seconds), indent=1))


if __name__ == "__main__":
    main()
