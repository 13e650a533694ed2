"""The loop over trials: ask, start, watch, keep, tell; several at once, within one budget, resumable at any instant."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from influence_cli.errors import EXIT_DONE, EXIT_FAILURES, EXIT_STOPPED, InfluenceError
from influence_cli.launching.protocol import Job, Launcher, Resources, Task
from influence_cli.launching.records import add_record, drop_records, read_records, record_of
from influence_cli.schemas.configs import Budget
from influence_cli.schemas.sweeps import Objective, Reading, TrialRecord
from influence_cli.store.run_directory import holder
from influence_cli.store.steering import stop_run
from influence_cli.sweeps import watching
from influence_cli.sweeps.commands import begin_command, resume_command
from influence_cli.sweeps.directory import SweepDirectory
from influence_cli.sweeps.objectives import Usage, over_seeds
from influence_cli.sweeps.protocol import Searcher
from influence_cli.sweeps.records import TrialStore

POLL = 0.5
"""Seconds from one look at a running trial to the next."""
RETRIES = 3
"""How often in a sitting a run is taken up again that ended by no fault of its settings: a signal, a lost job, a server."""

_log = logging.getLogger(__name__)

Stop = Literal["signal", "cost", "tokens", "failed", "error"]
Told = Callable[[TrialRecord], None]


@dataclass(frozen=True)
class Ending:
    """How a trial, or one run of it, ended in this sitting; ``stopped``: it can be taken up again.

    A ``reason`` says why it was stopped where nobody asked for it.
    """

    state: Literal["done", "pruned", "failed", "stopped"]
    reason: str = ""


@dataclass(frozen=True)
class Outcome:
    """How a sitting of a sweep ended."""

    trials: tuple[TrialRecord, ...]
    exit_code: int
    reason: str = ""
    over: bool = False
    """Whether no trial is left to be had, or to go on with."""


@dataclass
class Sweep:
    """One sitting of a sweep: :meth:`run` once, in an event loop; ``told`` hears of each trial that begins or ends.

    With ``retry_failed`` the trials that failed are had once more, from where each was when it did.
    """

    directory: SweepDirectory
    store: TrialStore
    searcher: Searcher
    launcher: Launcher
    told: Told
    poll: float = POLL
    retry_failed: bool = False
    _trials: dict[int, TrialRecord] = field(default_factory=dict)
    _used: dict[Path, Usage] = field(default_factory=dict)
    _retries: dict[Path, int] = field(default_factory=dict)
    _has_started: bool = False
    _stop: Stop | None = None
    _waiting: asyncio.Event = field(default_factory=asyncio.Event)

    def stop(self, reason: Stop = "signal") -> None:
        """Begin no further trial, and let those that run end resumably."""
        self._stop = self._stop or reason
        self._waiting.set()

    async def run(self) -> Outcome:
        """Have the trials that are missing; return how it went. What is stored is whole at every instant."""
        for known in self.store.trials():
            self._trials[known.number] = known
            self._count(known)
            if known.state == "failed" and self.retry_failed:
                self._keep(known.model_copy(update={"state": "running", "reason": "", "finished": None}))
            elif known.state != "running":
                self.searcher.tell(known)
            elif known.reason:
                self._keep(known.model_copy(update={"reason": ""}))
        self._check_budget()
        unfinished = [each for each in self._trials.values() if each.state == "running"]
        active: set[asyncio.Task[None]] = set()
        try:
            while True:
                while self._stop is None and len(active) < self.directory.config.parallel:
                    trial = unfinished.pop(0) if unfinished else self._next()
                    if trial is None:
                        break
                    active.add(asyncio.create_task(self._have(trial)))
                if not active:
                    return self._outcome()
                done, active = await asyncio.wait(active, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
        except BaseException:
            self.stop("error")
            await asyncio.gather(*active, return_exceptions=True)
            raise

    def _next(self) -> TrialRecord | None:
        """Return the next trial, its parameters stored; None where there are no more."""
        number, wanted = len(self._trials), self.directory.config.trials
        if wanted is not None and number >= wanted:
            return None
        parameters = self.searcher.ask(number)
        if parameters is None:
            return None
        trial = TrialRecord(number=number, parameters=parameters, started=time.time())
        self._keep(trial)
        return trial

    def _keep(self, trial: TrialRecord) -> None:
        self.store.save(trial)
        self._trials[trial.number] = trial

    # -- one trial ----------------------------------------------------------------------------------------------------

    async def _have(self, trial: TrialRecord) -> None:
        """Have the runs of ``trial``; keep what it came to, then tell the searcher."""
        self.told(trial)
        found: list[list[Reading]] = []
        ending = Ending("done")
        for index, path in enumerate(self.directory.runs(trial.number)):
            try:
                ending = await self._attempt(trial.number, index, path)
            except InfluenceError as error:
                if not self._has_started:  # it will be so for every trial
                    raise
                ending = Ending("stopped", str(error))
            if ending.state != "done":
                break
            readings = _readings(path, self.directory.config.objectives)
            if isinstance(readings, str):
                ending = Ending("failed", readings)
                break
            found.append(readings)
        self._finish(trial.number, ending, found)

    def _finish(self, number: int, ending: Ending, found: list[list[Reading]]) -> None:
        used = [self._used.get(path, Usage()) for path in self.directory.runs(number)]
        costs = [each.cost for each in used]
        changes: dict[str, Any] = {
            "tokens": sum(each.tokens for each in used),
            "cost": None if None in costs else sum(cost or 0.0 for cost in costs),
            "reason": ending.reason,
        }
        if ending.state != "stopped":
            changes |= {"state": ending.state, "finished": time.time()}
        if ending.state == "done":
            changes["readings"] = tuple(over_seeds(of_objective) for of_objective in zip(*found, strict=True))
        trial = self._trials[number].model_copy(update=changes)
        self._keep(trial)
        if ending.state != "stopped":
            self.searcher.tell(trial)
            self.told(trial)
        over = [each for each in self._trials.values() if each.state != "running" or each.reason]
        if len(over) >= self.directory.config.stop_after_failed and all(map(_came_to_nothing, over)):
            self.stop("failed")

    async def _attempt(self, number: int, index: int, path: Path) -> Ending:
        """Have one run of a trial, from its beginning or from where it was broken off."""
        if index == 0 and self._is_given_up(number):
            return Ending("pruned", self._why_pruned(number))
        while True:
            if self._stop is not None:
                return Ending("stopped")
            job = await self._surviving(number, index)
            if job is None and holder(path) is None:
                if watching.is_had(path):
                    self._look(path)
                    return Ending("done")
                job = await self._start(number, index, path)
            # Otherwise a process that an earlier sitting started somewhere has it, and is waited for.
            ending = await self._watch(number, index, path, job)
            drop_records(self.directory.path, [self._task_name(number, index)])
            if ending is not None:
                return ending

    async def _start(self, number: int, index: int, path: Path) -> Job:
        watching.clear_unborn(path)
        budget = self._left(path)
        if watching.run_state(path) is None:
            parameters = self._trials[number].parameters
            command = begin_command(self.directory, parameters, index, path, budget)
        else:
            command = resume_command(self.directory, path, budget)
        config = self.directory.config
        resources = Resources(**config.resources.model_dump())
        task = Task(self._task_name(number, index), tuple(command), self.directory.log(number).resolve(), resources)
        job = await self.launcher.start(task)
        self._has_started = True
        if self.launcher.survives:
            started = datetime.now(UTC).isoformat(timespec="seconds")
            add_record(
                self.directory.path, record_of(task, job.id, config.launcher.name, config.launcher.options, started)
            )
        return job

    async def _surviving(self, number: int, index: int) -> Job | None:
        """Return the job of a run that an earlier sitting, which was killed, left in a queue or at work; else None."""
        name, launcher = self._task_name(number, index), self.directory.config.launcher.name
        for record in read_records(self.directory.path):
            if record.name != name:
                continue
            if record.launcher != launcher:
                raise InfluenceError(
                    f"The job {record.id} of {record.launcher} may be at work on trial {number}.",
                    hint=f"End it: influence jobs cancel {record.id} --folder {self.directory.path}.",
                )
            job = await self.launcher.attach(record.task(), record.id)
            if (await job.status()).state in ("waiting", "running"):
                return job
            drop_records(self.directory.path, [name])
        return None

    def _task_name(self, number: int, index: int) -> str:
        seed = f"-{index}" if self.directory.config.seeds > 1 else ""
        return f"{self.directory.path.resolve().name}-{number:03d}{seed}"

    async def _watch(self, number: int, index: int, path: Path, job: Job | None) -> Ending | None:
        """Look at a run until it ends; return how, or None where it is to be taken up."""
        waiting = asyncio.create_task(job.wait() if job is not None else _released(path, self.poll))
        stopping = asyncio.create_task(self._waiting.wait())
        try:
            while not waiting.done():
                await asyncio.wait({waiting, stopping}, timeout=self.poll, return_when=asyncio.FIRST_COMPLETED)
                if waiting.done():
                    break
                self._look(path)
                if index == 0 and self._steps(number, path):
                    await _cancel(job, path)
                    return Ending("pruned", self._why_pruned(number))
                if self._stop is not None:
                    await _cancel(job, path)
                    break
            code = await waiting
        finally:
            stopping.cancel()
            waiting.cancel()
        self._look(path)
        if index == 0:
            self._steps(number, path)
        return self._ending(number, path, code, ours=job is not None)

    def _ending(self, number: int, path: Path, code: int | None, *, ours: bool) -> Ending | None:
        state = watching.run_state(path)
        if state == "done" and (code == EXIT_DONE or (code is None and watching.is_had(path))):
            return Ending("done")
        if self._stop is not None or code == EXIT_STOPPED:
            return Ending("stopped")
        return self._given_way(number, path, code) if ours and state != "running" else None

    def _given_way(self, number: int, path: Path, code: int | None) -> Ending | None:
        """Return how a run of ours ended that did not end well, or None where it is to be taken up."""
        why = watching.why_ended(code, self.directory.log(number))
        if code is not None and code >= 0:
            if watching.lacks_room(path, why):
                return Ending("stopped", why)
            if code != EXIT_FAILURES:
                return Ending("failed", why)
        self._retries[path] = self._retries.get(path, 0) + 1
        if self._retries[path] > RETRIES:
            return Ending("failed" if code == EXIT_FAILURES else "stopped", why)
        _log.warning("Trial %d is taken up again (%d of %d): %s", number, self._retries[path], RETRIES, why)
        return None

    # -- giving up early ----------------------------------------------------------------------------------------------

    def _steps(self, number: int, path: Path) -> bool:
        """Keep and report what new iterations came to; return whether the trial is to be given up."""
        trial = self._trials[number]
        new = watching.steps_of(path, self.directory.config.objectives[0], tuple(trial.steps))
        if not new:
            return False
        self._keep(trial.model_copy(update={"steps": {**trial.steps, **new}}))
        return self._is_given_up(number)

    def _is_given_up(self, number: int) -> bool:
        return any(self.searcher.report(number, *step) for step in sorted(self._trials[number].steps.items()))

    def _why_pruned(self, number: int) -> str:
        step, value = max(self._trials[number].steps.items())
        return f"{self.directory.config.objectives[0].name} {value:.4g} after iteration {step}"

    # -- the budget ---------------------------------------------------------------------------------------------------

    def _count(self, trial: TrialRecord) -> None:
        for path in self.directory.runs(trial.number):
            self._used[path] = watching.used_by(path)

    def _look(self, path: Path) -> None:
        self._used[path] = watching.used_by(path)
        self._check_budget()

    def _check_budget(self) -> None:
        budget = self.directory.config.budget
        if budget.tokens is not None and sum(each.tokens for each in self._used.values()) >= budget.tokens:
            self.stop("tokens")
        if budget.cost is not None and sum(each.spent for each in self._used.values()) >= budget.cost:
            self.stop("cost")

    def _left(self, path: Path) -> Budget:
        """Return what the run in ``path`` may use in all: what others leave of the sweep's budget."""
        budget = self.directory.config.budget
        others = [used for other, used in self._used.items() if other != path]
        cost = None if budget.cost is None else budget.cost - sum(each.spent for each in others)
        tokens = None if budget.tokens is None else budget.tokens - sum(each.tokens for each in others)
        return Budget(cost=None if cost is None else max(cost, 1e-9), tokens=None if tokens is None else max(tokens, 1))

    # -- the end ------------------------------------------------------------------------------------------------------

    def _outcome(self) -> Outcome:
        trials = tuple(self._trials[number] for number in sorted(self._trials))
        config = self.directory.config
        ended = [trial for trial in trials if trial.state != "running"]
        failed = [trial for trial in ended if trial.state == "failed"]
        broken = [trial for trial in trials if trial.state == "running" and trial.reason]
        if self._stop == "failed":
            nothing = [trial for trial in trials if _came_to_nothing(trial)]
            told = f"all of the first {len(nothing)} trials failed, the last: {nothing[-1].reason.rstrip('.')}"
            return Outcome(trials, EXIT_FAILURES, told)
        open_ = len(trials) - len(ended)
        if self._stop == "signal":
            return Outcome(trials, EXIT_STOPPED, "stopped by a signal")
        if self._stop in ("cost", "tokens"):
            limit = f"${config.budget.cost:g}" if self._stop == "cost" else f"{config.budget.tokens:,} tokens"
            return Outcome(trials, EXIT_STOPPED, f"the budget of {limit} is used up")
        if open_:
            why = f", the last: {broken[-1].reason.rstrip('.')}" if broken else ""
            return Outcome(trials, EXIT_STOPPED, f"{open_} trials were stopped and can be taken up{why}")
        if len(failed) > config.max_failed_share * len(ended):
            allowed = f"more than the {config.max_failed_share:.0%} that max_failed_share allows"
            return Outcome(trials, EXIT_FAILURES, f"{len(failed)} of {len(ended)} trials failed, {allowed}", over=True)
        return Outcome(trials, EXIT_DONE, over=True)


def _came_to_nothing(trial: TrialRecord) -> bool:
    """Return whether a trial failed, or was given up for now because the machine would not have it."""
    return trial.state == "failed" or (trial.state == "running" and bool(trial.reason))


def _readings(path: Path, objectives: Sequence[Objective]) -> list[Reading] | str:
    """Return what the run in ``path`` came to, or why there is no telling: also one that cannot be read is only a trial."""
    try:
        return watching.readings_of(path, objectives)
    except InfluenceError as error:
        return str(error)


async def _released(path: Path, poll: float) -> None:
    """Return when no process has the run in ``path`` any more."""
    while holder(path) is not None:  # noqa: ASYNC110 - a lock of the kernel's tells nobody when it is free
        await asyncio.sleep(poll)


async def _cancel(job: Job | None, path: Path) -> None:
    if job is not None:
        await job.cancel()
        return
    with suppress(InfluenceError):
        stop_run(path)
