"""Fuzzing with coverage (atheris, libFuzzer): `nox -s fuzz`, or `python tests/fuzz/fuzz.py TARGET --minutes 10`.

Each target gets so many minutes of processor time. What is found (a traceback, more than a second, more than 500 MB) is
written to tests/fuzz/corpus/TARGET/found-*, and the fast tests replay every file there from then on. Inputs that reach new
code are kept in the folder named by --keep, if one is named.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from hashlib import sha256
from pathlib import Path

CORPUS = Path(__file__).parent / "corpus"
MINUTES = 10.0
MOST_SECONDS = 1.0
MOST_MIB = 500
MOST_LENGTH = {
    "environment": 16_384,
    "import-pickle": 16_384,
    "import-parquet": 16_384,
    "import-inspect": 16_384,
    "query": 400,
}
INSTRUMENTED = ["influence_cli", "influence_openai", "influence_transformers", "yaml"]


class TooSlowError(Exception):
    """An input that took more than a second of processor time."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", help="none: all of them, one after another")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="of processor time, for each target")
    parser.add_argument("--log", type=Path, help="a line for each target is added to this file")
    parser.add_argument("--keep", type=Path, help="folder for inputs that reached new code")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        fuzz(arguments.targets[0], arguments.minutes, arguments.keep)
        return 0
    sys.path.insert(0, str(Path(__file__).parent))
    from targets import TARGETS

    bad = 0
    for name in arguments.targets or TARGETS:
        line, found = campaign(name, arguments.minutes, arguments.keep)
        bad += found
        print(line, flush=True)
        if arguments.log:
            with arguments.log.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
    return 1 if bad else 0


def campaign(name: str, minutes: float, keep: Path | None) -> tuple[str, bool]:
    """Fuzz one target in a process of its own; return a line that says how it went, and whether anything was found."""
    folder = Path(tempfile.mkdtemp(prefix=f"fuzz-{name}-"))
    kept = (keep or folder) / name
    kept.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, __file__, name, "--child", "--minutes", str(minutes), "--keep", str(kept)]
    started, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    artifacts = [path for path in folder.iterdir() if path.name.startswith(("crash-", "timeout-", "oom-"))]
    for path in artifacts:
        target = CORPUS / name / f"found-{sha256(path.read_bytes()).hexdigest()[:12]}"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    last = [line for line in done.stderr.splitlines() if line.startswith("#") or "stat::" in line]
    told = [line.strip() for line in done.stdout.splitlines() if line.startswith("fuzzed")]
    result = told[-1] if told else f"ended with {done.returncode}: {' '.join(done.stderr.splitlines()[-12:])[-400:]}"
    shutil.rmtree(folder, ignore_errors=True)
    line = (
        f"{name}: {processor / 60:.1f} CPU-minutes in {(time.monotonic() - started) / 60:.1f}; {result}; "
        f"{last[-1].split('exec/s')[0].strip() if last else 'no statistics'}; found {len(artifacts)}"
    )
    return line, bool(artifacts or not told)


def fuzz(name: str, minutes: float, keep: Path | None) -> None:
    """Fuzz until the processor time is used up, or something is found."""
    import atheris

    sys.path.insert(0, str(Path(__file__).parent))
    with atheris.instrument_imports(include=INSTRUMENTED):
        from targets import TARGETS
    target, count = TARGETS[name], 0
    for path in sorted((CORPUS / name).glob("*")):
        target(path.read_bytes())  # what it loads and makes once is not the input's doing
    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    limit = time.process_time() + 60.0 * minutes

    def one(data: bytes) -> None:
        nonlocal count
        count += 1
        began = time.process_time()
        target(data)
        now = time.process_time()
        if now - began > MOST_SECONDS:
            raise TooSlowError(f"{now - began:.1f} s for {len(data)} bytes")
        if now > limit:
            most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
            print(f"fuzzed with {count:,} inputs; memory grew by {most - base} MiB at most", flush=True)
            sys.stderr.flush()
            os._exit(0)

    seeds = [str(keep)] if keep else []
    flags = [
        f"-rss_limit_mb={base + MOST_MIB}",
        f"-max_len={MOST_LENGTH.get(name, 4096)}",
        "-timeout=60",
        "-len_control=20",
    ]
    atheris.Setup([sys.argv[0], *flags, *seeds, str(CORPUS / name)], one)
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
