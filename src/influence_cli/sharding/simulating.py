"""One sitting of a simulation in shards: processes started, minded, and their conversations brought together."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from influence_cli.errors import EXIT_FAILURES, EXIT_USER, InfluenceError
from influence_cli.launching.commands import program
from influence_cli.launching.protocol import Task
from influence_cli.launching.supervision import Ending, Verdict
from influence_cli.listening import Listener
from influence_cli.settings import changed_from
from influence_cli.sharding.gathering import gathering
from influence_cli.sharding.minding import mind_shards
from influence_cli.sharding.orphans import SHARD_PREFIX, end_orphans
from influence_cli.sharding.splitting import Sharding
from influence_cli.sharding.verdicts import BUDGET, OWN_CODES, Held, held, of_simulation, user_mistake
from influence_cli.simulation.counting import count_since
from influence_cli.simulation.runner import start_tally
from influence_cli.simulation.shards import ShardWatch, hand_over
from influence_cli.simulation.sitting import Sitting, state_of
from influence_cli.simulation.summing import Summary, summarised
from influence_cli.simulation.tally import StopReason
from influence_cli.store.beats import beat_file, log_file
from influence_cli.store.merge import merge_into, refuse_live_shards
from influence_cli.store.reader import RunReader
from influence_cli.store.run_directory import RunDirectory
from influence_cli.store.shards import all_shards
from influence_cli.store.steering import is_paused, unpause_run
from influence_cli.store.writer import RunWriter

_REFRESH = 0.25


def simulate_in_shards(sitting: Sitting, sharding: Sharding, heard: Listener) -> Summary:
    """Have the conversations of ``sitting`` had by shards; return how it went. What they stored is merged in any case."""
    assert sitting.directory is not None
    directory = sitting.directory
    with directory.writer() as writer:
        directory.remember(sitting.config)
        return asyncio.run(_ShardedSimulation(sitting, sharding, directory, writer, heard).simulate())


class _ShardedSimulation:
    """What the steps of such a sitting share."""

    def __init__(
        self, sitting: Sitting, sharding: Sharding, directory: RunDirectory, writer: RunWriter, heard: Listener
    ) -> None:
        self._sitting = sitting
        self._sharding = sharding
        self._directory = directory
        self._writer = writer
        self._heard = heard
        self._tally = start_tally(sitting.environments, sitting.config)
        count = min(sharding.count, self._tally.total)
        self._shards = {f"{SHARD_PREFIX}{shard.name}": directory.of_shard(shard) for shard in all_shards(count)}
        self._stops: list[StopReason] = []
        self._summed: Summary | None = None
        self._watch = ShardWatch({name: beat_file(shard) for name, shard in self._shards.items()}, self._tally)

    async def simulate(self) -> Summary:
        """Start the shards, wait for them, merge; return how it went."""
        began, started = time.monotonic(), time.time()
        endings: dict[str, Ending] = {}

        def gather() -> None:
            try:
                merge_into(self._directory, self._databases())
            finally:
                self._summed = self._summary(endings, started, time.monotonic() - began)

        async with gathering(self._sharding, self._directory.path, gather, self._heard) as names:
            await self._begin()
            names.extend(self._shards)
            endings.update(await self._mind())
        assert self._summed is not None
        return self._summed

    async def _begin(self) -> None:
        self._writer.set_state("running")
        unpause_run(self._directory.path)
        await end_orphans(self._directory.path, self._sharding, self._heard)
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
            heard=self._heard,
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
            self._heard.say(f"{done} of {self._tally.total} conversations are finished.")
        limit = self._sitting.config.concurrency // len(self._shards)
        each = f"{max(1, limit)} conversations at once in each"
        self._heard.say(f"{len(self._shards)} shards, {each}; their logs: {self._directory.path / 'logs'}/shard-*.log")

    def _task(self, name: str) -> Task:
        shard = self._shards[name]
        arguments = ("simulate", "--resume", str(shard.path.resolve()), "--shard", str(shard.shard), "--quiet")
        return Task(name, program(*arguments), log_file(shard).resolve(), self._sharding.how.resources)

    def _sign(self, task: Task) -> object:
        return object() if is_paused(self._directory.path) else self._watch.sign(task.name)

    def _judge(self, task: Task, code: int) -> Verdict:
        """Return what it means that a shard ended so; InfluenceError if it is nothing that another start would mend."""
        self._watch.ended(task.name)
        shard = self._shards[task.name]
        assert shard.shard is not None
        if code == EXIT_USER:
            with suppress(InfluenceError):
                self._note(held(shard), "")
            raise user_mistake(shard.shard, task.log)
        found = held(shard) if code in OWN_CODES else None
        verdict = of_simulation(code, found, shard.shard.count(self._tally.total))
        self._note(found, verdict.why)
        return verdict

    def _note(self, found: Held | None, why: str) -> None:
        """Remember why a shard stopped, if the run may have stopped for the same reason."""
        if found is not None and found.stop is not None and (why == BUDGET or found.stop == "alike"):
            self._stops.append(found.stop)

    def _told(self, task: Task, what: str) -> None:
        shard = self._shards[task.name].shard
        self._writer.add_event("shard", {"shard": str(shard), "what": what})
        self._heard.warn(f"Shard {shard}: {what}.")

    async def _show(self) -> None:
        """Show how far all shards are together until cancelled."""
        asking = asyncio.create_task(self._refresh())
        try:
            await self._heard.follow(self._tally, {"Run": str(self._directory.path), "Shards": str(len(self._shards))})
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
        state = state_of(tally, self._sitting.config)
        with suppress(InfluenceError):
            self._writer.set_state(state)
            if tally.stop:
                self._writer.add_event("stop", {"reason": tally.stop})
        self._heard.ended(tally)
        config, models = self._sitting.config, self._sitting.models
        summary = summarised(
            self._directory.path, state, tally, self._writer.totals().mean_rating, config, elapsed, models
        )
        lost = {shard: ending for shard, ending in over.items() if ending.verdict.why != BUDGET}
        if tally.done >= tally.total or tally.stop in ("signal", "alike") or not lost:
            return summary
        reason = "; ".join(f"shard {shard} was given up: {ending.verdict.why}" for shard, ending in lost.items())
        return replace(summary, reason=reason, exit_code=EXIT_FAILURES)
