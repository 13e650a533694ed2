"""Faults done to commands that run as processes, and whether anything was lost, kept twice or paid for twice.

Concept: a fault is done to a :class:`~influence_cli.testing.stages.Stage` or to the server that it asks; then the command is
taken up again until it is done, and what it left behind is held against an undisturbed one.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from influence_cli.store.run_directory import holder
from influence_cli.testing.serving import TestServer
from influence_cli.testing.stages import Key, Stage, audit, stored_answers

_MOST_RESUMES = 10


@dataclass
class Result:
    """What a fault did to a stage, once it was taken up again and done: a row of the table.

    ``answered``: what the server answered for money; ``in_vain``: answers that the run did not hold when the fault was over,
    because it had destroyed them or they were in flight, so that they were asked for again; ``needless``: those that the
    run does not hold although nothing disturbed it any more.

    ``failed_for_good``: recorded as failed in a stage of training that was finished, and is never repeated. ``lost``: neither
    done nor recorded.
    """

    stage: str
    fault: str
    share: float | None = None
    injected: int = 0
    expected: int = 0
    failed_at_first: int = 0
    failed_for_good: int = 0
    resumes: int = 0
    lost: int = 0
    duplicated: int = 0
    answered: int = 0
    in_vain: int = 0
    needless: int = 0
    exit_codes: list[int] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def sound(self) -> bool:
        """Whether nothing was lost, kept twice or paid for twice without need, and every end was an orderly one."""
        return not (self.lost or self.duplicated or self.needless or self.problems)


def run_to_its_end(
    arguments: Sequence[str], *, allowed: Sequence[int], timeout: float = 600.0
) -> tuple[int, list[str]]:
    """Run a command; return its exit code and what was wrong with how it ended: a strange code, a traceback."""
    done = subprocess.run(  # noqa: S603 - ourselves
        arguments, capture_output=True, text=True, timeout=timeout, check=False, env=_environment()
    )
    return done.returncode, _wrong(done.returncode, done.stderr, allowed)


def _wrong(code: int, said: str, allowed: Sequence[int]) -> list[str]:
    problems = [] if code in allowed else [f"exit code {code}: {said[-300:]}"]
    return [*problems, *(["a traceback"] if "Traceback" in said else [])]


def start(arguments: Sequence[str]) -> subprocess.Popen[str]:
    """Start a command; its errors go to a pipe."""
    return subprocess.Popen(  # noqa: S603 - ourselves
        arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=_environment()
    )


def end(process: subprocess.Popen[str], result: Result, allowed: Sequence[int], timeout: float = 300.0) -> None:
    """Wait for a command that was started and keep how it ended."""
    _, said = process.communicate(timeout=timeout)
    result.exit_codes.append(process.returncode)
    result.problems += _wrong(process.returncode, said, allowed)


def until_at_work(process: subprocess.Popen[str], stage: Stage, requests: int = 1) -> bool:
    """Wait until the command has asked so many requests; return whether it still runs and holds its run."""
    before = stage.server.stats()["requests"]
    while process.poll() is None and stage.server.stats()["requests"] < before + requests:
        time.sleep(0.01)
    return process.poll() is None and holder(stage.folder) is not None


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(("OPENAI_", "INFLUENCE_"))}


Disturb = Callable[[Stage, Result], None]
"""Runs the stage under a fault, once; what came of it goes into the result."""


def put_through(stage: Stage, fault: str, disturb: Disturb, expected: set[Key]) -> Result:
    """Run ``stage`` under a fault, then take it up again without any until it is done; return what came of it."""
    stage.prepare()
    stage.server.reset()
    result = Result(stage.name, fault, expected=len(expected))
    started = time.monotonic()
    disturb(stage, result)
    stage.server.configure(faults={})
    if stage.has_stored():
        result.failed_at_first = len(audit(stage).failed)
        result.in_vain = unstored(stage)
    done: set[Key] | None = None
    while result.resumes < _MOST_RESUMES:
        code, problems = run_to_its_end(stage.resume(), allowed=(0, 1, 3))
        result.problems += problems
        before, done = done, audit(stage).keys
        if (code == 0 and expected <= done) or done == before:
            break
        result.resumes += 1
    stats, found = stage.server.stats(), audit(stage)
    result.injected += sum(stats["injected"].values())
    result.answered = sum(stage.server.bodies().values())
    result.needless = max(0, unstored(stage) - result.in_vain)
    missing = expected - found.keys
    result.lost = sum(not found.accounts_for(key) for key in missing)
    result.failed_for_good = len(missing) - result.lost
    result.duplicated = found.duplicated + len(found.keys - expected)
    result.problems += found.problems
    result.seconds = round(time.monotonic() - started, 1)
    return result


def unstored(stage: Stage) -> int:
    """Return how many answers of the server the run does not hold, once the server answers nobody any more."""
    while stage.server.stats()["in_flight"]:
        time.sleep(0.01)
    return max(0, sum(stage.server.bodies().values()) - stored_answers(stage))


def expected_of(stage: Stage) -> set[Key]:
    """Return what an undisturbed run of ``stage`` leaves behind."""
    stage.prepare()
    code, problems = run_to_its_end(stage.begin(), allowed=(0,))
    if code or problems:
        raise RuntimeError(f"the undisturbed run failed: {problems}")
    return audit(stage).keys


def misbehaving(fault: str, share: float, **config: Any) -> Disturb:
    """Return the disturbance of a server that spoils a share of all answers."""

    def disturb(stage: Stage, result: Result) -> None:
        stage.server.configure(faults={fault: share}, **config)
        result.share = share
        code, problems = run_to_its_end(stage.begin(), allowed=(0, 1, 3))
        result.exit_codes.append(code)
        result.problems += problems

    return disturb


def outage(seconds: float, after: int = 5) -> Disturb:
    """Return the disturbance of a server that is away for a while, from so many requests on."""

    def disturb(stage: Stage, result: Result) -> None:
        process = start(stage.begin())
        if until_at_work(process, stage, after):
            stage.server.outage(seconds)
            result.injected += 1
            time.sleep(seconds)
            _until_back(stage.server)
        end(process, result, (0,))

    return disturb


def _until_back(server: TestServer) -> None:
    while True:
        try:
            server.stats()
        except OSError:
            time.sleep(0.05)
        else:
            return


def ended(number: int, times: int, pauses: Sequence[float], allowed: Sequence[int]) -> Disturb:
    """Return the disturbance of a process that gets a signal, ``times`` over, after pauses in seconds."""

    def disturb(stage: Stage, result: Result) -> None:
        for time_of in range(times):
            process = start(stage.resume() if time_of else stage.begin())
            if until_at_work(process, stage):
                time.sleep(pauses[time_of % len(pauses)])
                if process.poll() is None:
                    process.send_signal(number)
                    result.injected += 1
            # Once its work is done and the interpreter takes itself down, a signal ends it as it ends any program.
            end(process, result, (0, -number, *allowed))

    return disturb


def trial_killed(stage: Stage, result: Result) -> None:
    """Kill the process of one trial of a sweep, once: the sweep takes that trial up again by itself."""
    process = start(stage.begin())
    if until_at_work(process, stage):
        # Several are at work, and which of them asked first is nobody's to say.
        trials = (holder(trial) for trial in sorted((stage.folder / "trials").iterdir()))
        at_work = next(filter(None, trials), None)
        if at_work is not None:
            os.kill(at_work, signal.SIGKILL)
            result.injected += 1
    end(process, result, (0,))


def held_up(seconds: float) -> Disturb:
    """Return the disturbance of a process that is stopped (SIGSTOP) for a while and goes on."""

    def disturb(stage: Stage, result: Result) -> None:
        process = start(stage.begin())
        if until_at_work(process, stage, 3):
            process.send_signal(signal.SIGSTOP)
            result.injected += 1
            time.sleep(seconds)
            process.send_signal(signal.SIGCONT)
        end(process, result, (0,))

    return disturb


def two_at_once(stage: Stage, result: Result) -> None:
    """Start a second process on a run that the first one writes: it is refused, and the first goes on."""
    first = start(stage.begin())
    if until_at_work(first, stage):
        first.send_signal(signal.SIGSTOP)  # so that it is not done before the second has looked
        second = subprocess.run(  # noqa: S603 - ourselves
            stage.resume(), capture_output=True, text=True, check=False, env=_environment()
        )
        result.injected += 1
        if second.returncode != 2 or f"is being written by process {first.pid}" not in second.stderr:
            result.problems.append(f"the second was not refused: {second.returncode} {second.stderr[-200:]}")
        first.kill()
    end(first, result, (-signal.SIGKILL, 0))
