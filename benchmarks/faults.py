"""The fault campaign: simulate, score and train as real processes while servers, disks, clocks and the processes fail.

    python benchmarks/faults.py                  everything: about an hour on two cores
    python benchmarks/faults.py --quick          fewer conversations and shares
    python benchmarks/faults.py --only outage,kill --soak 0

Each row of the table: what was injected, what of an undisturbed run's conversations is missing in the end (lost), what is
there twice, how many paid answers the fault destroyed, and how many were asked for again although they had been stored. `docs/reliability.md` shows it.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import psutil

from influence_cli.testing.disks import can_mount, filled, full_while_at_work, small_disk
from influence_cli.testing.faults import (
    STAGES,
    Disturb,
    Result,
    Stage,
    end,
    ended,
    expected_of,
    held_up,
    misbehaving,
    outage,
    put_through,
    run_to_its_end,
    start,
    two_at_once,
    until_at_work,
)
from influence_cli.testing.server import serve

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "faults.json"
THERAPY = ROOT / "environments" / "therapy"
SMALL = ROOT / "tests" / "fixtures" / "environments" / "tiny"
"""Training goes through every person of an environment; this one has few."""
HTTP = ("rate_limit", "server_error", "drop", "slow", "malformed")
SHARES = (0.01, 0.1, 0.5)
SERVER = {"latency": 0.03, "spread": 0.8, "seed": 3, "retry_after": 0.05, "slow_seconds": 3.0}
OPTIONS = ("timeout=2", "retry_delay=0.05", "initial_concurrency=32")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", default="", help="names of faults, separated by commas")
    parser.add_argument("--stages", default=",".join(STAGES))
    parser.add_argument("--n", type=int, default=32, help="conversations of a run")
    parser.add_argument("--outage", type=float, default=30.0, help="seconds that the server is away")
    parser.add_argument("--soak", type=float, default=600.0, help="seconds at full concurrency; 0: none")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    only = [name for name in arguments.only.split(",") if name]
    stages = [name for name in arguments.stages.split(",") if name in STAGES]
    scratch = Path(tempfile.mkdtemp(prefix="faults-"))
    rows: list[dict] = []
    try:
        with serve(**SERVER) as server:
            for name in stages:
                for row in campaign(name, server, scratch, only, arguments):
                    rows.append({**asdict(row), "sound": row.sound})
                    print(told(rows[-1]), flush=True)
        extra = {"full disk before the start": full_from_the_start(scratch)} if wanted("disk", only) else {}
        soaked = soak(scratch, arguments.soak) if arguments.soak and wanted("soak", only) else None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    document = {
        "schema": "influence.faults/1",
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": os.cpu_count(),
        "conversations": arguments.n,
        "rows": rows,
        **({"disk": extra} if extra else {}),
        **({"soak": soaked} if soaked else {}),
    }
    arguments.out.write_text(json.dumps(document, indent=1) + "\n")
    print(markdown(document))
    sys.exit(0 if all(row["sound"] for row in rows) else 1)


def wanted(name: str, only: list[str]) -> bool:
    return not only or name in only


def campaign(name: str, server, scratch: Path, only: list[str], arguments) -> Iterator[Result]:
    """Yield a row for each fault of a stage."""

    def stage(label: str, **changes) -> Stage:
        settings = {"n": arguments.n, "options": OPTIONS, **changes}
        return Stage(name, scratch / f"{name}-{label}", environment, server, **settings)

    environment = SMALL if name == "train" else THERAPY
    server.configure(faults={})
    expected = expected_of(stage("reference"))
    for number, (label, fault, disturb, changes) in enumerate(faults(only, arguments)):
        with_disk = fault == "disk full"
        made = stage(f"{number}-{label}", **changes)
        if with_disk:
            folder = scratch / f"disk-{name}"
            with small_disk(folder, 12) as disk:
                on_disk = Stage(name, disk / "run", environment, server, n=arguments.n, options=OPTIONS)
                yield put_through(on_disk, fault, full_while_at_work(disk), expected)
        else:
            yield put_through(made, fault, disturb, expected)
            shutil.rmtree(made.folder, ignore_errors=True)


def faults(only: list[str], arguments) -> Iterator[tuple[str, str, Disturb, dict]]:
    """Yield short name, name in the table, what is done, and what the stage is changed by."""
    clock = random.Random(2026)
    pauses = [clock.uniform(0.0, 1.0) for _ in range(20)]
    for fault in HTTP:
        for share in SHARES[1:] if arguments.quick else SHARES:
            if wanted(fault, only):
                yield f"{fault}-{share}", fault, misbehaving(fault, share), {}
    if wanted("outage", only):
        yield "outage", f"server away {arguments.outage:g} s", outage(arguments.outage), {}
    if wanted("kill", only):
        yield "kill", "kill -9", ended(signal.SIGKILL, 3 if arguments.quick else 5, pauses, (-9,)), {}
    if wanted("term", only):
        yield "term", "SIGTERM", ended(signal.SIGTERM, 2, pauses, (3,)), {}
    if wanted("stop", only):
        yield "stop", "SIGSTOP 6 s", held_up(6.0), {}
    if wanted("two", only):
        yield "two", "two processes", two_at_once, {}
    if wanted("disk", only) and can_mount(Path(tempfile.gettempdir()) / "faults-probe"):
        yield "disk", "disk full", lambda *_: None, {}
    if wanted("clock", only) and shutil.which("faketime"):
        yield from ((f"clock{n}", f"clock jumps {by}", jumped(by), {}) for n, by in enumerate(("+2d", "-2d")))


def jumped(by: str) -> Disturb:
    """Return the disturbance of a wall clock that jumps while the command runs (libfaketime; the other clock does not)."""

    def disturb(stage: Stage, result: Result) -> None:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "time"
            file.write_text("+0\n")
            setting = [
                "env", f"FAKETIME_TIMESTAMP_FILE={file}", "FAKETIME_NO_CACHE=1", "FAKETIME_DONT_FAKE_MONOTONIC=1",
                f"LD_PRELOAD={faketime_library()}",
            ]  # fmt: skip
            process = start([*setting, *stage.begin()])
            if until_at_work(process, stage, 3):
                file.write_text(f"{by}\n")
                result.injected += 1
            end(process, result, (0,))

    return disturb


def faketime_library() -> str:
    found = subprocess.run(["dpkg", "-L", "libfaketime"], capture_output=True, text=True, check=True).stdout
    return next(line for line in found.splitlines() if line.endswith("libfaketime.so.1"))


def full_from_the_start(scratch: Path) -> dict[str, object]:
    """Return how every command that writes ends on a disk that is full before it starts: one line, exit code 2."""
    probe = scratch / "full"
    if not can_mount(scratch / "probe"):
        return {"skipped": "no disk can be mounted here"}
    found: dict[str, object] = {}
    with small_disk(probe, 8) as disk:
        run, model = disk / "run", ["-m", "scripted:demo"]
        made = ["simulate", "--env", str(THERAPY), *model, "--n", "8", "--quiet"]
        subprocess.run(command(*made, "--out", str(run)), check=True, capture_output=True)
        whole = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
        with filled(disk):
            for name, arguments in {
                "simulate": [*made, "--out", str(disk / "other")],
                "score": ["score", str(run), "--with", "harm", "--judge", "scripted:demo", "--quiet"],
                "train": [
                    "train",
                    *made[1:3],
                    *model,
                    "--algo",
                    "scripted",
                    "--iterations",
                    "1",
                    "--out",
                    str(disk / "t"),
                ],
                "export": ["export", str(run), "--to", "jsonl", "--out", str(disk / "all.jsonl")],
                "report": ["report", str(run), "--out", str(disk / "page.html")],
            }.items():
                done = subprocess.run(command(*arguments), capture_output=True, text=True, check=False)
                found[name] = {"exit_code": done.returncode, "said": done.stderr.strip().splitlines()[-1:]}
        partial = [path.name for path in (disk / "all.jsonl", disk / "page.html") if path.exists()]
        found["partial files"] = partial
        found["run unchanged"] = all(
            path.read_bytes() == data for path, data in whole.items() if path.suffix == ".yaml"
        )
        code, problems = run_to_its_end(command("runs", "check", str(run)), allowed=(0,))
        found["run sound"] = code == 0 and not problems
    return found


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "influence_cli", *arguments]


def soak(scratch: Path, seconds: float) -> dict[str, object]:
    """Return memory and open files of a simulation at full concurrency, sampled over ``seconds``."""
    samples: list[tuple[float, float, int]] = []
    with serve(
        latency=0.2, spread=0.8, seed=9, faults={"server_error": 0.02, "drop": 0.01, "malformed": 0.01}
    ) as server:
        arguments = command(
            "simulate", "--env", str(THERAPY), "-m", "openai:test-model", "--base-url", server.base_url, "--n", "100000",
            "-o", "initial_concurrency=256", "-o", "retry_delay=0.1", "--concurrency", "256", "--out", str(scratch / "soak"),
            "--quiet", "--json", "--samples", "1000",
        )  # fmt: skip
        process = start(arguments)
        watched, begun = psutil.Process(process.pid), time.monotonic()
        while process.poll() is None and time.monotonic() - begun < seconds:
            time.sleep(2.0)
            with watched.oneshot():
                samples.append((time.monotonic() - begun, watched.memory_info().rss / 2**20, watched.num_fds()))
        process.send_signal(signal.SIGTERM)
        result = Result("simulate", "soak")
        end(process, result, (3,))
        stats = server.stats()
    settled = [sample for sample in samples if sample[0] > seconds / 4]
    growth = slope([s[0] / 60 for s in settled], [s[1] for s in settled])
    return {
        "seconds": round(samples[-1][0]),
        "concurrency": 256,
        "requests": stats["requests"],
        "injected": stats["injected"],
        "repeated": stats["repeated"],
        "memory_mib": {
            "first": round(settled[0][1], 1),
            "last": round(settled[-1][1], 1),
            "most": round(max(s[1] for s in samples), 1),
        },
        "growth_mib_per_minute": round(growth, 2),
        "open_files": {"least": min(s[2] for s in settled), "most": max(s[2] for s in settled)},
        "exit_codes": result.exit_codes,
        "problems": result.problems,
    }


def slope(x: list[float], y: list[float]) -> float:
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    return sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / sum((a - mean_x) ** 2 for a in x)


def told(row: dict) -> str:
    share = "" if row["share"] is None else f" {row['share']:.0%}"
    return (
        f"{row['stage']:9} {row['fault']}{share}: {row['injected']} injected, lost {row['lost']}, twice {row['duplicated']}, "
        f"paid in vain {row['in_vain']} of {row['answered']} ({row['needless']} needless), failed at first {row['failed_at_first']}, for good {row['failed_for_good']}, "
        f"resumed {row['resumes']}, exits {row['exit_codes']}, {row['seconds']} s {row['problems'] or ''}"
    )


def markdown(document: dict) -> str:
    """Return the table of `docs/reliability.md`: a line for each fault, the commands side by side."""
    stages = list(dict.fromkeys(row["stage"] for row in document["rows"]))
    faults: dict[tuple, dict] = {}
    for row in document["rows"]:
        faults.setdefault((row["fault"], row["share"]), {})[row["stage"]] = row
    columns = (
        "injected",
        "lost",
        "duplicated",
        "failed_at_first",
        "failed_for_good",
        "in_vain",
        "answered",
        "needless",
    )
    heads = (
        "injected",
        "lost",
        "twice",
        "failed at first",
        "for good",
        "paid in vain",
        "of answers",
        "repeated without need",
    )
    lines = [f"| fault | share | {' | '.join(heads)} |", "| --- " * (len(heads) + 2) + "|"]
    for (fault, share), found in faults.items():
        cells = [
            " / ".join(str(found[stage][column]) if stage in found else "-" for stage in stages) for column in columns
        ]
        cells = ["0" if set(cell.split(" / ")) == {"0"} else cell for cell in cells]
        lines.append(f"| {fault.replace('_', ' ')} | {'' if share is None else f'{share:.0%}'} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
