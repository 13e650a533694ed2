"""What shards give: ``influence simulate`` with one worker process and with several, launched in the same way.

Two limits, each with one worker and with ``--workers``: *processor*, where nothing but the client's own work takes time (a
scripted model in the process; more workers than cores cannot help), and *waiting*, where each worker has a fixed number of
conversations in progress and a mock server answers after a fixed time. Start, loading and merging are in all times.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

HERE = Path(__file__).resolve().parent
AT_ONCE = 4
LATENCY = 0.4


@contextmanager
def limit(name):
    """Yield the arguments of a limit, for one worker's number of conversations at once."""
    if name == "processor":
        yield ["--model", "scripted:demo"]
        return
    from influence_cli.testing.server import serve

    with serve(latency=LATENCY) as server:
        yield ["--model", "openai:test-model", "--base-url", server.base_url]


def simulate(arguments, conversations, workers, launcher, folder):
    command = [sys.executable, "-m", "influence_cli", "simulate", "--env", str(HERE / "environments" / "yardstick")]
    command += ["--n", str(conversations), "--turns", "5", "--no-veto", "--concurrency", str(AT_ONCE * workers)]
    if launcher == "ray":  # a worker that waits needs no core of its own; Ray would start no more of them than cores
        command += ["--launcher-option", f"cpus={workers}"]
    command += [*arguments, "--shards", str(workers), "--launcher", launcher, "--out", str(folder), "--json", "--quiet"]
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    wall = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert json.loads(done.stdout)["conversations"]["complete"] == conversations, done.stdout
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "workers": workers, "conversations": conversations, "wall_s": round(wall, 2),
        "conversations_per_s": round(conversations / wall, 2),
        # Ray's workers are no children of the command.
        "cpu_ms_per_conversation": round(1000 * cpu / conversations, 2) if launcher == "local" else None,
    }  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--launcher", default="local")
    parser.add_argument("--limits", default="processor,waiting")
    parser.add_argument("--processor-n", type=int, default=1500)
    parser.add_argument("--waiting-n", type=int, default=48)
    parser.add_argument("--quick", action="store_true", help="a few conversations")
    parser.add_argument(
        "--out", type=Path, help="where to keep the figures; what stands there of other launchers and limits stays"
    )
    arguments = parser.parse_args()
    sizes = {"processor": arguments.processor_n, "waiting": arguments.waiting_n}
    if arguments.quick:
        sizes = dict.fromkeys(sizes, 12)
    rows = []
    for name in arguments.limits.split(","):
        with limit(name) as settings, tempfile.TemporaryDirectory() as scratch:
            pair = [
                simulate(settings, sizes[name], workers, arguments.launcher, Path(scratch) / f"run-{workers}")
                for workers in (1, arguments.workers)
            ]
        ratio = pair[1]["conversations_per_s"] / pair[0]["conversations_per_s"]
        rows.append({"launcher": arguments.launcher, "limit": name, "ratio": round(ratio, 2), "runs": pair})
        rows[-1]["load"] = [round(value, 1) for value in os.getloadavg()]
        print(json.dumps(rows[-1]), flush=True)
    if arguments.out:
        known = json.loads(arguments.out.read_text())["rows"] if arguments.out.is_file() else []
        taken = {(row["launcher"], row["limit"]) for row in rows}
        kept = [row for row in known if (row["launcher"], row["limit"]) not in taken]
        commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=HERE, capture_output=True, text=True, check=False)
        about = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "commit": commit.stdout.strip(),
                 "machine": platform.processor() or platform.machine(), "cores": os.cpu_count(),
                 "python": platform.python_version()}  # fmt: skip
        arguments.out.write_text(json.dumps({**about, "rows": [*kept, *rows]}, indent=1) + "\n")


if __name__ == "__main__":
    main()
