"""Asking SLURM: submit, look, cancel; what its words mean."""

from __future__ import annotations

import asyncio
import shutil
import signal
from pathlib import Path

from influence_cli.api import InfluenceError

_WAITING = {"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT"}
_ENDED_BY = {
    "CANCELLED": -signal.SIGTERM,
    "TIMEOUT": -signal.SIGTERM,
    "PREEMPTED": -signal.SIGTERM,
    "DEADLINE": -signal.SIGTERM,
    "OUT_OF_MEMORY": -signal.SIGKILL,
    "NODE_FAIL": -signal.SIGKILL,
    "BOOT_FAIL": -signal.SIGKILL,
}
_ACTIVE = {"RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "STAGE_OUT", "SIGNALING", "RESIZING"}


async def ask(*command: str) -> tuple[int, str, str]:
    """Return exit code, output and errors of one of SLURM's commands; InfluenceError where it is not installed."""
    if shutil.which(command[0]) is None:
        raise InfluenceError(f"There is no command {command[0]!r}.", hint="Run this where SLURM is installed.")
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await process.communicate()
    return process.returncode or 0, out.decode(errors="replace"), err.decode(errors="replace")


async def submit(script: Path) -> str:
    """Return the number of the job that ``script`` became; InfluenceError with what SLURM has against it."""
    code, out, err = await ask("sbatch", "--parsable", str(script))
    if code != 0:
        said = " ".join(err.replace("sbatch: error:", "").split()) or f"exit code {code}"
        raise InfluenceError(f"SLURM refuses the job: {said}", hint=f"What was asked for stands in {script}.")
    return out.strip().partition(";")[0]


async def queued() -> dict[str, str] | None:
    """Return the state of each of one's own jobs that has not ended, by its number; None where SLURM does not answer."""
    code, out, _ = await ask("squeue", "--me", "--noheader", "--array", "--states=all", "--format=%i|%T")
    if code != 0:
        return None
    found = dict(line.strip().split("|", 1) for line in out.splitlines() if "|" in line)
    return {number: state for number, state in found.items() if state in _WAITING | _ACTIVE}


def is_waiting(state: str) -> bool:
    """Return whether a job in ``state`` has not begun."""
    return state in _WAITING


async def final_code(number: str) -> int | None:
    """Return the exit code of a job that left none itself, as SLURM remembers it; None where it does not."""
    for command, read in (
        (("scontrol", "--oneliner", "show", "job", number), read_scontrol),
        (
            ("sacct", "--noheader", "--allocations", "--parsable2", "--format=State,ExitCode", "--jobs", number),
            read_sacct,
        ),
    ):
        if shutil.which(command[0]) is None:
            continue
        code, out, _ = await ask(*command)
        known = read(out) if code == 0 else None
        if known is not None:
            return known
    return None


def read_scontrol(text: str) -> int | None:
    """Return the exit code that ``scontrol show job`` tells; None for a job that has not ended."""
    facts = dict(part.split("=", 1) for part in text.split() if "=" in part)
    return meaning(facts.get("JobState", ""), facts.get("ExitCode", ""))


def read_sacct(text: str) -> int | None:
    """Return the exit code that ``sacct`` tells; None where it tells nothing, or the job has not ended."""
    lines = text.strip().splitlines()
    state, _, code = lines[-1].partition("|") if lines else ("", "", "")
    return meaning(state, code)


def meaning(state: str, code: str) -> int | None:
    """Return what a job's state and its code (``3:0``, exit code and signal) come to; None before its end."""
    words = state.split()
    if not words or words[0] in _WAITING | _ACTIVE:
        return None
    if words[0] in _ENDED_BY:
        return _ENDED_BY[words[0]]
    exit_code, _, number = code.partition(":")
    if number.isdigit() and int(number):
        return -int(number)
    if exit_code.isdigit() and int(exit_code):
        return int(exit_code)
    return 0 if words[0] == "COMPLETED" else 1
