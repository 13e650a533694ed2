"""How time, memory and disk grow with the number of conversations, and how fast a large run answers questions.

``influence simulate`` on the yardstick environment against a mock server without latency (ours, or ``--mock SCRIPT``), for
each size in turn; then `influence runs show` and a few queries on each run.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from orchestration import HERE, measure, server


def simulate(url, conversations, turns, folder):
    command = [sys.executable, "-m", "influence_cli", "simulate", "--env", str(HERE / "environments" / "yardstick")]
    command += ["--n", str(conversations), "--turns", str(turns), "--concurrency", "256", "--no-veto"]
    command += ["--model", "openai:gpt-4o", "--base-url", url, "--out", str(folder), "--json", "--quiet"]
    figures, out = measure(command)
    summary = json.loads(out)
    assert summary["conversations"]["complete"] == conversations, summary["conversations"]
    calls = sum(role["requests"] for role in summary["roles"].values())
    return {
        "conversations": conversations, "turns": turns, "calls": calls, "work_s": summary["seconds"],
        "cpu_ms_per_call": 1000 * figures["cpu_s"] / calls, "peak_mb": figures["peak_mb"],
        "disk_mb": sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) / 1e6,
    }  # fmt: skip


def seconds_of(*arguments):
    """Return the seconds that a whole command takes, the better of two."""
    best = float("inf")
    for _ in range(2):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "influence_cli", *arguments], check=True, stdout=subprocess.DEVNULL)
        best = min(best, time.perf_counter() - started)
    return best


def questions(folder):
    where = str(folder)
    return {
        "runs_show_s": seconds_of("runs", "show", where, "--json"),
        "first_search_s": seconds_of("runs", "search", where, "promise", "--json"),
        "search_s": seconds_of("runs", "search", where, "promise", "--json"),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default="1000,10000,100000")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--mock", help="path of a mock server's script")
    parser.add_argument("--keep", type=Path, help="keep the runs in this folder")
    parser.add_argument("--quick", action="store_true", help="64 conversations of one turn")
    parser.add_argument("--out", type=Path, help="where to keep the figures")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.sizes, arguments.turns = "64", 1
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        keep = arguments.keep or Path(scratch)
        keep.mkdir(parents=True, exist_ok=True)
        for size in map(int, arguments.sizes.split(",")):
            with server(arguments, "zero", 256, max_seconds=7200) as (url, _):
                row = simulate(url, size, arguments.turns, keep / f"run-{size}")
            rows.append({**row, **questions(keep / f"run-{size}")})
            print(json.dumps(rows[-1]), flush=True)
    if arguments.out:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=HERE, capture_output=True, text=True, check=False)
        about = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "commit": commit.stdout.strip(),
                 "machine": platform.processor() or platform.machine(), "cores": os.cpu_count(),
                 "python": platform.python_version()}  # fmt: skip
        arguments.out.write_text(json.dumps({**about, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
