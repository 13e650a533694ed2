"""The fault campaign: simulate, score, train and sweep as real processes while servers, disks, clocks and processes fail.

    python benchmarks/faults.py                  everything: about two hours on two cores
    python benchmarks/faults.py --quick          fewer conversations and shares
    python benchmarks/faults.py --only outage,kill --soak 0
    python benchmarks/faults.py --stages sweep --merge     these rows anew, all others as they are

Each row of the table: what was injected, what of an undisturbed run's conversations (of a sweep: its trials, too) is missing
in the end (lost), what is there twice, how many paid answers the fault destroyed, and how many were asked for again although
they had been stored. `docs/reliability.md` shows it; `sittings` say when, where and by which command its rows were made.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from fault_table import begin_sitting, markdown, opened, put, save
from influence_cli.testing.disks import can_mount, filled, full_while_at_work, small_disk
from influence_cli.testing.faults import (
    Disturb,
    Result,
    end,
    ended,
    expected_of,
    held_up,
    misbehaving,
    outage,
    put_through,
    run_to_its_end,
    start,
    trial_killed,
    two_at_once,
    until_at_work,
)
from influence_cli.testing.server import serve
from influence_cli.testing.stages import STAGES, Stage
from soak import soak

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "faults.json"
THERAPY = ROOT / "environments" / "therapy"
SMALL = ROOT / "tests" / "fixtures" / "environments" / "tiny"
"""Training goes through every person of an environment; this one has few."""
TRAINED = ("train", "sweep")
HTTP = ("rate_limit", "server_error", "drop", "slow", "malformed")
SHARES = (0.01, 0.1, 0.5)
SERVER = {"latency": 0.03, "spread": 0.8, "seed": 3, "retry_after": 0.05, "slow_seconds": 3.0}
OPTIONS = ("timeout=2", "retry_delay=0.05", "initial_concurrency=32")
DISK = {"sweep": 48}
"""Megabytes of the disk that fills; of other commands 12: a sweep has three runs."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", default="", help="names of faults, separated by commas")
    parser.add_argument("--shares", default=",".join(map(str, SHARES)), help="of answers that a server spoils")
    parser.add_argument("--stages", default=",".join(STAGES), help="commands; none: only what belongs to no command")
    parser.add_argument("--n", type=int, default=32, help="conversations of a run")
    parser.add_argument("--outage", type=float, default=30.0, help="seconds that the server is away")
    parser.add_argument("--soak", type=float, default=600.0, help="seconds at full concurrency; 0: none")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--merge", action="store_true", help="keep what --out holds, but for what is made anew")
    arguments = parser.parse_args()
    only = [name for name in arguments.only.split(",") if name]
    stages = [name for name in arguments.stages.split(",") if name in STAGES]
    scratch = Path(tempfile.mkdtemp(prefix="faults-"))
    document = opened(arguments.out, merge=arguments.merge)
    sitting = begin_sitting(document, about(arguments))
    try:
        with serve(**SERVER) as server:
            for name in stages:
                for result in campaign(name, server, scratch, only, arguments):
                    row = {**asdict(result), "sound": result.sound, "sitting": sitting}
                    print(told(row), flush=True)
                    put(document, row)
                    save(document, arguments.out)
        if wanted("disk", only):
            document["disk"] = {"full disk before the start": full_from_the_start(scratch), "sitting": sitting}
        if arguments.soak and wanted("soak", only):
            document["soak"] = {**soak(scratch / "soak", arguments.soak), "sitting": sitting}
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    save(document, arguments.out)
    print(markdown(document))
    sys.exit(0 if all(row["sound"] for row in document["rows"]) else 1)


def about(arguments: argparse.Namespace) -> dict[str, object]:
    """Return what a reader must know of this sitting."""
    asked = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--exclude", "*"], cwd=ROOT, capture_output=True, text=True, check=False
    )  # fmt: skip
    return {
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": asked.stdout.strip() or None,
        "command": " ".join(["python", "benchmarks/faults.py", *sys.argv[1:]]),
        "cores": os.cpu_count(),
        "load_at_start": round(os.getloadavg()[0], 1),
        "conversations": arguments.n,
    }


def wanted(name: str, only: list[str]) -> bool:
    return not only or name in only


def campaign(name: str, server, scratch: Path, only: list[str], arguments) -> Iterator[Result]:
    """Yield a row for each fault of a stage."""

    def stage(label: str, **changes) -> Stage:
        settings = {"n": arguments.n, "options": OPTIONS, **changes}
        return Stage(name, scratch / f"{name}-{label}", environment, server, **settings)

    environment = SMALL if name in TRAINED else THERAPY
    server.configure(faults={})
    expected = expected_of(stage("reference"))
    for number, (label, fault, disturb, changes) in enumerate(faults(name, only, arguments)):
        with_disk = fault == "disk full"
        made = stage(f"{number}-{label}", **changes)
        if with_disk:
            folder = scratch / f"disk-{name}"
            with small_disk(folder, DISK.get(name, 12)) as disk:
                on_disk = Stage(name, disk / "run", environment, server, n=arguments.n, options=OPTIONS)
                yield put_through(on_disk, fault, full_while_at_work(disk), expected)
        else:
            yield put_through(made, fault, disturb, expected)
            shutil.rmtree(made.folder, ignore_errors=True)


def faults(name: str, only: list[str], arguments) -> Iterator[tuple[str, str, Disturb, dict]]:
    """Yield short name, name in the table, what is done, and what the stage is changed by."""
    clock = random.Random(2026)
    pauses = [clock.uniform(0.0, 1.0) for _ in range(20)]
    for fault in HTTP:
        for share in SHARES[1:] if arguments.quick else map(float, arguments.shares.split(",")):
            if wanted(fault, only):
                yield f"{fault}-{share}", fault, misbehaving(fault, share), {}
    if wanted("outage", only):
        yield "outage", f"server away {arguments.outage:g} s", outage(arguments.outage), {}
    if wanted("kill", only):
        yield "kill", "kill -9", ended(signal.SIGKILL, 3 if arguments.quick else 5, pauses, (-9,)), {}
    if wanted("term", only):
        yield "term", "SIGTERM", ended(signal.SIGTERM, 2, pauses, (3,)), {}
    if wanted("trial", only) and name == "sweep":
        yield "trial", "kill -9 of a trial's run", trial_killed, {}
    if wanted("stop", only):
        yield "stop", "SIGSTOP 6 s", held_up(6.0), {}
    if wanted("two", only):
        yield "two", "two processes", two_at_once, {}
    if wanted("disk", only) and can_mount(Path(tempfile.gettempdir()) / "faults-probe"):
        yield "disk", "disk full", lambda *_: None, {}
    if wanted("clock", only) and shutil.which("faketime"):
        # The learner sleeps not at all: under libfaketime every time.sleep() of Python 3.11 fails with EINVAL where the
        # monotonic clock is left alone, whether the wall clock jumps or not.
        for number, by in enumerate(("+2d", "-2d")):
            yield f"clock{number}", f"clock jumps {by}", jumped(by), {"learning": 0.0}


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
        learnt = [*made[1:3], *model, "--algo", "scripted", "--iterations", "1"]
        subprocess.run(command(*made, "--out", str(run)), check=True, capture_output=True)
        whole = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
        with filled(disk):
            for name, arguments in {
                "simulate": [*made, "--out", str(disk / "other")],
                "score": ["score", str(run), "--with", "harm", "--judge", "scripted:demo", "--quiet"],
                "train": ["train", *learnt, "--out", str(disk / "t")],
                "sweep": ["sweep", *learnt, "--search", "samples=[2,3]", "--out", str(disk / "s")],
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


def told(row: dict) -> str:
    share = "" if row["share"] is None else f" {row['share']:.0%}"
    return (
        f"{row['stage']:9} {row['fault']}{share}: {row['injected']} injected, lost {row['lost']}, twice {row['duplicated']}, "
        f"paid in vain {row['in_vain']} of {row['answered']} ({row['needless']} needless), failed at first {row['failed_at_first']}, for good {row['failed_for_good']}, "
        f"resumed {row['resumes']}, exits {row['exit_codes']}, {row['seconds']} s {row['problems'] or ''}"
    )


if __name__ == "__main__":
    main()
