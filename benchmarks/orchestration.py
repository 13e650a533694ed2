"""How much of a server's capacity reaches the conversations: ``influence simulate`` against a bare aiohttp loop.

Whole processes in turn, several rounds, against one mock server. The server is ours unless ``--mock`` names a script
that takes ``--port --slots --prefill-ms --token-ms --sigma --p-yes --max-seconds`` and answers like OpenAI's. Another
peer joins with ``--peer NAME=COMMAND`` (``{url}`` and ``{n}`` are filled in).
"""

import argparse
import json
import os
import platform
import shlex
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from ideal import ideal

HERE = Path(__file__).resolve().parent
PROFILES = {"zero": (0.0, 0.0, 0.0), "fixed": (50.0, 2.0, 0.0), "tail": (50.0, 2.0, 1.0)}
TURNS = 5


@contextmanager
def server(arguments, profile, slots, *, max_seconds=600):
    prefill, token, sigma = PROFILES[profile]
    if arguments.mock is None:
        from influence_cli.testing.server import serve

        with serve(latency=prefill / 1000, token_latency=token / 1000, slots=slots, models=("gpt-4o",)) as ours:
            yield ours.base_url, lambda: None
        return
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, arguments.mock, "--port", str(port), "--slots", str(slots), "--prefill-ms", str(prefill)]
    command += ["--token-ms", str(token), "--sigma", str(sigma), "--max-seconds", str(max_seconds)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    root = f"http://127.0.0.1:{port}"
    try:
        for _ in range(100):
            try:
                get(f"{root}/health")
                break
            except OSError:
                time.sleep(0.05)
        yield f"{root}/v1", lambda: get(f"{root}/stats")
        get(f"{root}/stats")
    finally:
        process.terminate()
        process.wait()


def get(url, data=None):
    with urllib.request.urlopen(urllib.request.Request(url, data=data), timeout=10) as answer:
        return json.loads(answer.read())


def measure(command):
    """Return wall and CPU seconds and peak memory of a whole process, and what it printed."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    out = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - started
    if status != 0:
        raise SystemExit(f"{shlex.join(command)} failed with {status}")
    return {"wall_s": wall, "cpu_s": usage.ru_utime + usage.ru_stime, "peak_mb": usage.ru_maxrss / 1024}, out


def ours(url, arguments, folder):
    command = [sys.executable, "-m", "influence_cli", "simulate", "--env", str(HERE / "environments" / "yardstick")]
    command += ["--n", str(arguments.conversations), "--concurrency", "256", "--no-veto", "--model", "openai:gpt-4o"]
    command += ["--base-url", url, "--out", str(folder), "--json", "--quiet"]
    figures, out = measure(command)
    summary = json.loads(out)
    assert summary["conversations"]["complete"] == arguments.conversations, summary
    calls = sum(role["requests"] for role in summary["roles"].values())
    return {**figures, "work_s": summary["seconds"], "calls": calls, "cpu_ms_per_call": 1000 * figures["cpu_s"] / calls}


def bare(url, arguments):
    command = [
        sys.executable,
        str(HERE / "bare_loop.py"),
        "--base-url",
        url,
        "--conversations",
        str(arguments.conversations),
    ]
    figures, out = measure(command)
    result = json.loads(out.rpartition("RESULT ")[2])
    calls = arguments.conversations * (4 * TURNS - 1)
    return {**figures, "work_s": result["work_s"], "calls": calls, "cpu_ms_per_call": 1000 * figures["cpu_s"] / calls}


def peer(command, url, arguments):
    figures, _ = measure(shlex.split(command.format(url=url, n=arguments.conversations)))
    return {**figures, "work_s": figures["wall_s"]}


def rounds(arguments, profile, slots):
    """Yield one row a client and round, the clients interleaved."""
    with server(arguments, profile, slots) as (url, stats):
        for number in range(arguments.rounds):
            clients = {"bare": lambda: bare(url, arguments)}
            for entry in arguments.peer:
                name, _, command = entry.partition("=")
                clients[name] = lambda command=command: peer(command, url, arguments)
            for name, run in clients.items():
                yield {"client": name, "profile": profile, "slots": slots, "round": number, **run()}
            with tempfile.TemporaryDirectory() as folder:
                if arguments.mock:
                    get(url.removesuffix("/v1") + "/reset", b"{}")
                row = ours(url, arguments, Path(folder) / "run")
                seen = stats() or {}
            yield {"client": "influence", "profile": profile, "slots": slots, "round": number, **row,
                   "slot_use": seen.get("utilisation")}  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mock", help="path of a mock server's script")
    parser.add_argument("--peer", action="append", default=[], help="NAME=COMMAND")
    parser.add_argument("--conversations", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--profiles", default="zero,fixed,tail")
    parser.add_argument("--slots", default="64,256")
    parser.add_argument("--quick", action="store_true", help="64 conversations, one round, no latency")
    parser.add_argument("--out", type=Path, help="where to keep the figures")
    parser.add_argument("--kept", type=Path, help="measure nothing: sum up the rows of this file anew")
    arguments = parser.parse_args()
    if arguments.kept:
        kept = json.loads(arguments.kept.read_text())
        kept["summary"] = summarise(kept["rows"], kept["conversations"])
        print(*kept["summary"], sep="\n")
        arguments.kept.write_text(json.dumps(kept, indent=1) + "\n")
        return
    if arguments.quick:
        arguments.conversations, arguments.rounds, arguments.profiles, arguments.slots = 64, 1, "zero", "64"
    rows = []
    for profile in arguments.profiles.split(","):
        for slots in map(int, arguments.slots.split(",")):
            for row in rounds(arguments, profile, slots):
                rows.append(row)
                print(
                    " ".join(f"{k}={v:.3f}" if isinstance(v, float) else f"{k}={v}" for k, v in row.items()), flush=True
                )
    ratios = summarise(rows, arguments.conversations)
    for line in ratios:
        print(line)
    if arguments.out:
        commit = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=HERE, capture_output=True, text=True, check=False
        ).stdout.strip()
        about = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "commit": commit, "machine": platform.processor() or platform.machine(),
                 "cores": os.cpu_count(), "python": platform.python_version(), "conversations": arguments.conversations}  # fmt: skip
        arguments.out.write_text(json.dumps({**about, "summary": ratios, "rows": rows}, indent=1) + "\n")


def summarise(rows, conversations):
    """Return one line a setting: our medians, and wall time of the work as a ratio to each other client's.

    Beside each ratio stands the one that a client without any cost would have: what the server alone takes.
    """
    lines = []
    for profile, slots in dict.fromkeys((row["profile"], row["slots"]) for row in rows):
        here = [row for row in rows if (row["profile"], row["slots"]) == (profile, slots)]
        mine = [row for row in here if row["client"] == "influence"]
        prefill, token, sigma = PROFILES[profile]
        bound = ideal(conversations, TURNS, slots, prefill / 1000, token / 1000, sigma)
        told = [
            f"{profile} {slots} slots: work {statistics.median(r['work_s'] for r in mine):.2f} s, ideal {bound:.2f} s"
        ]
        told.append(f"CPU {statistics.median(r['cpu_ms_per_call'] for r in mine):.2f} ms a call, start included")
        told.append(f"{statistics.median(r['wall_s'] - r['work_s'] for r in mine):.2f} s of start and exit")
        told.append(f"peak {max(r['peak_mb'] for r in mine):.0f} MB")
        if mine[0]["slot_use"] is not None:
            told.append(f"slot use {statistics.median(r['slot_use'] for r in mine):.0%}")
        for name in dict.fromkeys(row["client"] for row in here if row["client"] != "influence"):
            theirs = [row for row in here if row["client"] == name]
            ratio = statistics.median(a["work_s"] / b["work_s"] for a, b in zip(mine, theirs, strict=True))
            least = bound / statistics.median(row["work_s"] for row in theirs)
            told.append(f"x{ratio:.3f} of {name} (ideal x{least:.3f})")
        lines.append("; ".join(told))
    return lines


if __name__ == "__main__":
    main()
