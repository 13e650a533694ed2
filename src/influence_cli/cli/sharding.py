"""One sitting of a simulation in shards: processes started, minded, and their conversations brought together.

Invariant: whatever ends the sitting, what the shards have stored is in ``run.db`` when it returns, and a resumed run with
any number of shards, or none, goes on from there.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from influence_cli.cli import output
from influence_cli.cli.changes import changed_from
from influence_cli.cli.detaching import Launched, Place, launch
from influence_cli.cli.launching import program
from influence_cli.cli.logs import logged
from influence_cli.cli.minding import (
    BUDGET,
    SHARD_PREFIX,
    Sharding,
    death,
    end_orphans,
    gathering,
    last_error,
    mind_shards,
)
from influence_cli.cli.progress import line, show_progress
from influence_cli.cli.sitting import Sitting, begin, state_of, take_up
from influence_cli.cli.summing import Summary, summarised
from influence_cli.errors import EXIT_DONE, EXIT_FAILURES, EXIT_STOPPED, EXIT_USER, InfluenceError
from influence_cli.launching.protocol import Task
from influence_cli.launching.supervision import Ending, Verdict
from influence_cli.plugins.registry import PluginRegistry
from influence_cli.simulation.counting import count_since, ended_count, failed_for_now, last_stop
from influence_cli.simulation.runner import start_tally
from influence_cli.simulation.shards import ShardWatch, hand_over, shard_config
from influence_cli.simulation.tally import StopReason
from influence_cli.store.beats import beat_file, log_file
from influence_cli.store.merge import merge_into, refuse_live_shards
from influence_cli.store.reader import RunReader
from influence_cli.store.run_directory import MANIFEST, RunDirectory
from influence_cli.store.shards import Shard, all_shards
from influence_cli.store.steering import is_paused, unpause_run
from influence_cli.store.writer import RunWriter

_REFRESH = 0.25
_MAKING = 3.0
"""Seconds that the directory of a run may take from being made to being one."""


def begin_shard(
    registry: PluginRegistry,
    files: Sequence[Path],
    flags: Mapping[str, Any],
    assignments: Sequence[str],
    folders: Sequence[Path],
    out: Path | None,
    shard: Shard,
) -> Sitting:
    """Return the sitting of one shard, begun by hand; the first to come makes the run, the others take it up."""
    if out is None:
        raise InfluenceError("The shards of a run need one folder.", hint="Name it: --out FOLDER.")
    if not (out / MANIFEST).is_file():
        try:
            return _of_shard(begin(registry, files, flags, assignments, folders, out), shard)
        except InfluenceError:
            if not _is_made(out):
                raise
    return take_up(registry, str(out), flags, assignments, files, shard=shard)


def _is_made(out: Path) -> bool:
    """Return whether ``out`` is a run, or becomes one in a moment: another shard, begun at once, was quicker."""
    until = time.monotonic() + _MAKING
    while out.is_dir() and any(out.iterdir()) and not (out / MANIFEST).is_file() and time.monotonic() < until:
        time.sleep(_REFRESH)
    return (out / MANIFEST).is_file()


def _of_shard(sitting: Sitting, shard: Shard) -> Sitting:
    """Return what is left of a whole run's ``sitting`` for one shard."""
    assert sitting.directory is not None
    sitting.directory = sitting.directory.of_shard(shard)
    sitting.config = shard_config(sitting.config, shard)
    return sitting


def leave(registry: PluginRegistry, sitting: Sitting, where: Sequence[str]) -> Launched:
    """Leave the conversations of ``sitting`` to a process of this machine, which minds shards as ``where`` says."""
    assert sitting.directory is not None
    directory = sitting.directory
    with directory.writer():
        directory.remember(sitting.config)
    arguments = ("--resume", str(directory.path.resolve()), *where)
    return launch(registry, directory.path, "simulate", arguments, Place(None, None, None, detach=True))


def talk_in_shards(sitting: Sitting, sharding: Sharding) -> Summary:
    """Have the conversations of ``sitting`` had by shards; return how it went. What they stored is merged in any case."""
    assert sitting.directory is not None
    directory = sitting.directory
    with directory.writer() as writer, logged(directory.path / "logs"):
        directory.remember(sitting.config)
        return asyncio.run(_ShardedSitting(sitting, sharding, directory, writer).talk())


class _ShardedSitting:
    """What the steps of such a sitting share."""

    def __init__(self, sitting: Sitting, sharding: Sharding, directory: RunDirectory, writer: RunWriter) -> None:
        self._sitting = sitting
        self._sharding = sharding
        self._directory = directory
        self._writer = writer
        self._tally = start_tally(sitting.environments, sitting.config)
        count = min(sharding.count, self._tally.total)
        self._shards = {f"{SHARD_PREFIX}{shard.name}": directory.of_shard(shard) for shard in all_shards(count)}
        self._stops: list[StopReason] = []
        self._summed: Summary | None = None
        self._watch = ShardWatch({name: beat_file(shard) for name, shard in self._shards.items()}, self._tally)

    async def talk(self) -> Summary:
        """Start the shards, wait for them, merge; return how it went."""
        began, started = time.monotonic(), time.time()
        endings: dict[str, Ending] = {}

        def gather() -> None:
            try:
                merge_into(self._directory, self._databases())
            finally:
                self._summed = self._summary(endings, started, time.monotonic() - began)

        async with gathering(self._sharding, self._directory.path, gather) as names:
            await self._begin()
            names.extend(self._shards)
            endings.update(await self._mind())
        assert self._summed is not None
        return self._summed

    async def _begin(self) -> None:
        self._writer.set_state("running")
        unpause_run(self._directory.path)
        await end_orphans(self._directory.path, self._sharding)
        self._prepare()

    async def _mind(self) -> dict[str, Ending]:
        return await mind_shards(
            self._sharding,
            self._directory.path,
            self._tally,
            [self._task(name) for name in self._shards],
            sign=self._sign,
            judge=self._judge,
            told=self._told,
            show=self._show(),
        )

    def _prepare(self) -> None:
        """Let every shard hold what there is of its conversations already."""
        refuse_live_shards(self._directory)
        before = merge_into(self._directory)
        for shard in self._shards.values():
            hand_over(shard, self._sitting.environments, self._sitting.config)
        if self._sitting.resumed:
            done = self._count(time.time())
            changed = changed_from(self._directory.manifest.config, self._sitting.config)
            facts = {"finished": done, "merged": before, "shards": len(self._shards), "changed_from": changed}
            self._writer.add_event("resume", facts)
            output.say(f"{done} of {self._tally.total} conversations are finished.")
        limit = self._sitting.config.concurrency // len(self._shards)
        each = f"{max(1, limit)} conversations at once in each"
        output.say(f"{len(self._shards)} shards, {each}; their logs: {self._directory.path / 'logs'}/shard-*.log")

    def _task(self, name: str) -> Task:
        shard = self._shards[name]
        arguments = ("simulate", "--resume", str(shard.path.resolve()), "--shard", str(shard.shard), "--quiet")
        return Task(name, program(*arguments), log_file(shard).resolve(), self._sharding.resources)

    def _sign(self, task: Task) -> object:
        return object() if is_paused(self._directory.path) else self._watch.sign(task.name)

    def _judge(self, task: Task, code: int) -> Verdict:
        """Return what it means that a shard ended so; InfluenceError if it is nothing that another start would mend."""
        self._watch.ended(task.name)
        shard = self._shards[task.name]
        if code == EXIT_USER:
            self._note_alike(shard)
            raise InfluenceError(f"Shard {shard.shard} cannot go on: {last_error(task.log)}")
        died = Verdict("again", death(code))
        if code not in (EXIT_DONE, EXIT_FAILURES, EXIT_STOPPED) or not shard.database.is_file():
            return died
        with RunReader(shard) as reader:
            failed, stop, ended = failed_for_now(reader), last_stop(reader), ended_count(reader)
        if code == EXIT_STOPPED:
            if stop not in ("cost", "tokens"):
                return Verdict("again", "was stopped")
            self._stops.append(stop)
            return Verdict("over", BUDGET)
        if stop == "alike":
            self._stops.append(stop)
        if failed:
            kinds = ", ".join(sorted(kind.replace("_", " ") for kind in failed))
            return Verdict("again", f"{sum(failed.values())} conversations failed ({kinds})")
        if stop == "alike":
            return Verdict("over", "all its conversations failed alike")
        assert shard.shard is not None
        return Verdict("done") if ended >= shard.shard.count(self._tally.total) else died

    def _note_alike(self, shard: RunDirectory) -> None:
        """Remember if a shard ended because all its conversations failed alike, by something that a person can mend."""
        with suppress(InfluenceError), RunReader(shard) as reader:
            if last_stop(reader) == "alike":
                self._stops.append("alike")

    def _told(self, task: Task, what: str) -> None:
        shard = self._shards[task.name].shard
        self._writer.add_event("shard", {"shard": str(shard), "what": what})
        output.warn(f"Shard {shard}: {what}.")

    async def _show(self) -> None:
        """Show how far all shards are together until cancelled."""
        asking = asyncio.create_task(self._refresh())
        notes = {"Run": str(self._directory.path), "Shards": str(len(self._shards))}
        try:
            if output.is_quiet():
                await asyncio.Event().wait()
            await show_progress(self._tally, output.talk_console(), notes)
        finally:
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)

    async def _refresh(self) -> None:
        while True:
            self._watch.refresh()
            await asyncio.sleep(_REFRESH)

    def _databases(self) -> list[Path]:
        return [shard.database for shard in self._shards.values() if shard.database.is_file()]

    def _count(self, started: float) -> int:
        """Count in ``run.db`` what was done since ``started``; return how many conversations had ended before."""
        with RunReader(self._directory) as reader:
            count_since(reader, self._tally, started)
        return self._tally.earlier_done

    def _summary(self, endings: Mapping[str, Ending], started: float, elapsed: float) -> Summary:
        """Store the run's state; return how the sitting went."""
        tally = self._tally
        self._count(started)
        over = {self._shards[name].shard: ending for name, ending in endings.items() if ending.verdict.what == "over"}
        alike = len(tally.failures) == 1 and not tally.complete and not tally.earlier_done
        stops = [stop for stop in self._stops if stop != "alike" or alike]
        if tally.stop is None and stops:
            tally.stop = stops[0]
        state = state_of(tally)
        with suppress(InfluenceError):
            self._writer.set_state(state)
            if tally.stop:
                self._writer.add_event("stop", {"reason": tally.stop})
        if not output.is_quiet() and not output.talk_console().is_terminal:
            output.say(line(tally))
        config, models = self._sitting.config, self._sitting.models
        summary = summarised(
            self._directory.path, state, tally, self._writer.totals().mean_rating, config, elapsed, models
        )
        lost = {shard: ending for shard, ending in over.items() if ending.verdict.why != BUDGET}
        if state == "done" or tally.stop in ("signal", "alike") or not lost:
            return summary
        reason = "; ".join(f"shard {shard} was given up: {ending.verdict.why}" for shard, ending in lost.items())
        return replace(summary, reason=reason, exit_code=EXIT_FAILURES)
