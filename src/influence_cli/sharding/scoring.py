"""One sitting of scoring in shards: each takes its conversations from the run, judges them, and gives back their scores."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any

from influence_cli.errors import EXIT_USER
from influence_cli.launching.commands import program
from influence_cli.launching.protocol import Task
from influence_cli.launching.supervision import Ending, Verdict
from influence_cli.listening import Listener, Scored
from influence_cli.scoring.running import ScoreTally
from influence_cli.scoring.shards import count_scores_since, shard_keys
from influence_cli.scoring.sitting import ScoreRequest, ScoreResult, add_figures
from influence_cli.sharding.gathering import gathering
from influence_cli.sharding.minding import mind_shards
from influence_cli.sharding.orphans import SHARD_PREFIX, end_orphans
from influence_cli.sharding.splitting import Sharding
from influence_cli.sharding.verdicts import BUDGET, LIMITS, of_scoring, user_mistake
from influence_cli.store.beats import beat_file, log_file, read_beat
from influence_cli.store.merge import merge_into, refuse_live_shards
from influence_cli.store.reader import RunReader
from influence_cli.store.run_directory import RunDirectory
from influence_cli.store.shards import all_shards
from influence_cli.store.writer import RunWriter


def score_in_shards(
    directory: RunDirectory, request: ScoreRequest, arguments: Sequence[str], sharding: Sharding, heard: Listener
) -> ScoreResult:
    """Have what is missing scored by shards; return what came of it. What they stored is merged in any case.

    ``arguments`` tell ``influence score`` what ``request`` tells this process.
    """
    with directory.writer() as writer:
        return asyncio.run(_ShardedScoring(directory, request, arguments, sharding, writer, heard).score())


class _ShardedScoring:
    """What the steps of such a sitting share."""

    def __init__(
        self,
        directory: RunDirectory,
        request: ScoreRequest,
        arguments: Sequence[str],
        sharding: Sharding,
        writer: RunWriter,
        heard: Listener,
    ) -> None:
        self._directory = directory
        self._request = request
        self._arguments = arguments
        self._sharding = sharding
        self._writer = writer
        self._heard = heard
        self._tally = ScoreTally(budget=request.budget)
        self._over: dict[str, list[dict[str, Any]]] = {}

    async def score(self) -> ScoreResult:
        """Start the shards, wait for them, merge; return what the run holds now."""
        started = time.time()
        endings: dict[str, Ending] = {}
        async with gathering(self._sharding, self._directory.path, self._gather, self._heard) as names:
            await self._begin()
            names.extend(self._shards)
            endings.update(await self._mind(started))
        return self._result(endings, started)

    async def _begin(self) -> None:
        """Let every shard hold what it has to score."""
        await end_orphans(self._directory.path, self._sharding, self._heard)
        refuse_live_shards(self._directory)
        merge_into(self._directory)
        with RunReader(self._directory) as reader:
            complete = reader.rows("SELECT count(*) FROM trajectory WHERE status = 'complete'")[0][0]
        count = max(1, min(self._sharding.count, complete if self._request.limit is None else self._request.limit))
        self._shards = {f"{SHARD_PREFIX}{shard.name}": self._directory.of_shard(shard) for shard in all_shards(count)}
        for shard in self._shards.values():
            beat_file(shard).unlink(missing_ok=True)
            shard_keys(shard, self._request.limit)
        self._heard.say(f"{count} shards; their logs: {self._directory.path / 'logs'}/shard-*.log")

    async def _mind(self, started: float) -> dict[str, Ending]:
        return await mind_shards(
            self._sharding,
            self._directory.path,
            self._tally,
            [self._task(name, started) for name in self._shards],
            sign=self._sign,
            judge=self._judge,
            told=self._told,
            show=self._heard.count(self._look),
            heard=self._heard,
        )

    def _gather(self) -> None:
        merge_into(self._directory, [s.database for s in self._shards.values() if s.database.is_file()])

    def _task(self, name: str, started: float) -> Task:
        shard = self._shards[name]
        own = ("--shard", str(shard.shard), "--spent-since", str(started), "--quiet")
        command = program("score", str(shard.path.resolve()), *self._arguments, *own)
        return Task(name, command, log_file(shard).resolve(), self._sharding.how.resources)

    def _sign(self, task: Task) -> object:
        told = read_beat(beat_file(self._shards[task.name]))
        return told.get("process"), told.get("calls"), told.get("done")

    def _judge(self, task: Task, code: int) -> Verdict:
        """Return what it means that a shard ended so; InfluenceError if it is nothing that another start would mend."""
        file = beat_file(self._shards[task.name])
        told = read_beat(file)
        file.unlink(missing_ok=True)
        self._over.setdefault(task.name, []).append(told)
        if code == EXIT_USER:
            raise user_mistake(self._shards[task.name].shard, task.log)
        return of_scoring(code, told)

    def _told(self, task: Task, what: str) -> None:
        shard = self._shards[task.name].shard
        self._writer.add_event("shard", {"shard": str(shard), "what": what})
        self._heard.warn(f"Shard {shard}: {what}.")

    def _look(self) -> Scored:
        told = [read_beat(beat_file(shard)) for shard in self._shards.values()]
        over = [beat for beats in self._over.values() for beat in beats]
        done = sum(beat.get("done", 0) for beat in [*told, *over])
        return Scored(done, sum(not beat for beat in told), len(told))

    def _result(self, endings: Mapping[str, Ending], started: float) -> ScoreResult:
        tally, request = self._tally, self._request
        over = {name: ending for name, ending in endings.items() if ending.verdict.what == "over"}
        lost = {self._shards[name].shard: end.verdict.why for name, end in over.items() if end.verdict.why != BUDGET}
        if tally.stop is None and len(lost) < len(over):
            told = [beat.get("stop") for name in over for beat in self._over[name]]
            tally.stop = next(stop for stop in told if stop in LIMITS)
        result = ScoreResult(tally)
        if tally.stop != "signal":
            result.given_up = "; ".join(f"shard {shard} was given up: {why}" for shard, why in lost.items())
        beats = [beats for beats in self._over.values() if beats]
        tally.skipped = sum(first[0].get("skipped", 0) for first in beats)
        tally.quotes_dropped = sum(beat.get("quotes_dropped", 0) for each in beats for beat in each)
        scorers = {named.name for named in request.scorers}
        with RunReader(self._directory) as reader:
            result.computed.new = count_scores_since(reader, tally, started, scorers)
            for number, trajectory in reader.numbered(finished=True):
                request.plan.items(number, trajectory)  # so that the plan knows what was asked for
            add_figures(result, request, reader)
        return result
