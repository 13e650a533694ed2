"""The stages of an iteration that ask models: held-out and training conversations, scores, and the proof of the adapter.

Invariant: the models are opened once for all of an iteration's such stages and closed before training begins, so that
generation and training have the device by turns.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

from influence_cli.backends.names import ModelName
from influence_cli.environments.environment import Environment
from influence_cli.environments.sampling import episodes
from influence_cli.errors import EXIT_FAILURES, InfluenceError
from influence_cli.resolution import close_models
from influence_cli.schemas.configs import SimulationConfig, TrainConfig
from influence_cli.schemas.messages import Role
from influence_cli.schemas.records import Split
from influence_cli.scoring.computed import NamedScorer, compute_scores
from influence_cli.scoring.judging import Asking
from influence_cli.scoring.plan import Plan
from influence_cli.scoring.running import Numbered, ScoreTally, ask_all
from influence_cli.seeding import derive_seed
from influence_cli.simulation.calls import Run
from influence_cli.simulation.estimate import conversations_in_cache
from influence_cli.simulation.gate import Gate, follow
from influence_cli.simulation.models import RoleModel
from influence_cli.simulation.runner import Runner, start_tally
from influence_cli.simulation.tally import StopReason, Tally
from influence_cli.store.reader import RunReader
from influence_cli.store.run_directory import RunDirectory
from influence_cli.store.steering import is_paused
from influence_cli.store.writer import RunWriter
from influence_cli.training.proof import prove_served
from influence_cli.training.rewards import reward_plan, reward_role

_FINISHED = (
    "SELECT count(*) FROM episode e JOIN trajectory t ON t.episode_id = e.id"
    " WHERE e.iteration = ? AND t.status = 'complete'"
)
Models = Mapping[Role, RoleModel]
Work = Callable[[Models], Coroutine[Any, Any, dict[str, Any]]]
Keep = Callable[[str, Mapping[str, Any]], None]
Proof = tuple[Path, str | None, str]


class Stopped(Exception):  # noqa: N818 - not an error: the run can be taken up again
    """Conversations, or the asking for scores, were stopped by a signal or a budget."""

    def __init__(self, reason: StopReason) -> None:
        super().__init__(reason)
        self.reason = reason


class Conductor(Protocol):
    """What the loop needs of whoever runs it: models by name, and a face."""

    def models(self, agent: ModelName) -> Models:
        """Return the models of all roles, loaded, with ``agent`` in the agent's place."""
        ...

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Run ``work`` in an event loop of its own."""
        ...

    async def converse(self, runner: Runner, tally: Tally, title: str) -> None:
        """Have the runner's conversations, showing how they go."""
        ...

    async def judge(self, asking: asyncio.Future[None], tally: ScoreTally) -> None:
        """Wait until ``asking`` for scores has ended, which a signal stops."""
        ...

    def step(self, title: str, share: float) -> None:
        """Show how far a step is, from 0 to 1."""
        ...

    def told(self, share: float, words: str) -> None:
        """Show how far training is."""
        ...


class Conversing:
    """The stages of one run that ask models; ``scorer`` computes the reward where no model is asked for it."""

    def __init__(
        self,
        environments: Sequence[Environment],
        config: TrainConfig,
        directory: RunDirectory,
        writer: RunWriter,
        scorer: NamedScorer | None = None,
    ) -> None:
        self._environments = environments
        self._config = config
        self._directory = directory
        self._writer = writer
        self._scorer = scorer
        self._conductor: Conductor | None = None

    def run(
        self, conductor: Conductor, agent: ModelName, iteration: int, works: Mapping[str, Work], keep: Keep
    ) -> None:
        """Do ``works`` in order with the models of ``agent``; each is kept before the next begins."""
        self._conductor = conductor
        conductor.start(self._run(agent, iteration, works, keep))

    async def _run(self, agent: ModelName, iteration: int, works: Mapping[str, Work], keep: Keep) -> None:
        assert self._conductor is not None
        models = self._conductor.models(agent)
        try:
            for name, work in works.items():
                self._writer.begin_stage(iteration, name)
                keep(name, await work(models))
        finally:
            await close_models(models)

    def work(self, name: str, iteration: int, proof: Proof) -> Work:
        """Return what the stage ``name`` does."""
        if name == "evaluate":
            return lambda models: self._talk(models, iteration, "heldout")
        if name == "simulate":
            return lambda models: self._talk(models, iteration, "train")
        if name == "score":
            return lambda models: self._score(models, iteration)
        return lambda models: self._prove(models, proof)

    async def _talk(self, models: Models, iteration: int, split: Split) -> dict[str, Any]:
        config = phase_config(self._config, iteration, split)
        tally = start_tally(self._environments, config)
        reopened = self._writer.reopen_failed(iteration, split)
        tally.earlier_done = sum(
            self._writer.is_finished(episode.record.key)
            for episode in episodes(self._environments, config, iteration=iteration)
        )
        totals = self._writer.totals(scoring=True)
        tally.earlier_tokens, tally.earlier_cost = totals.tokens, totals.cost
        tally.check_budget()
        run = Run(config, models, self._writer, tally)
        room = conversations_in_cache(self._environments, config, models) or config.concurrency
        at_once = min(room, config.concurrency)
        runner = Runner(run, self._environments, self._writer, at_once=at_once, iteration=iteration)
        assert self._conductor is not None
        title = f"Iteration {iteration}, {'held-out' if split == 'heldout' else 'training'} conversations"
        async with self._pausing(run.gate, tally):
            await self._conductor.converse(runner, tally, title)
        _check(tally, config)
        tokens = self._writer.tokens_of(iteration, split)
        return {"conversations": tally.total, "failed": tally.failed, "reopened": reopened, "tokens": tokens}

    @asynccontextmanager
    async def _pausing(self, gate: Gate, tally: Tally | ScoreTally) -> AsyncIterator[None]:
        """Shut ``gate`` during the block while somebody asks for a pause, and open it for a run that stops."""
        pausing = asyncio.create_task(
            follow(
                gate,
                lambda: tally.stop is None and is_paused(self._directory.path),
                lambda paused: self._writer.add_event("pause" if paused else "unpause", {}),
            )
        )
        try:
            yield
        finally:
            pausing.cancel()
            await asyncio.gather(pausing, return_exceptions=True)

    async def _score(self, models: Models, iteration: int) -> dict[str, Any]:
        with RunReader(self._directory) as run:
            trajectories = self._shown(run, iteration)
            if self._scorer is not None:
                return self._compute(self._scorer, trajectories)
            role, selection = reward_role(self._config.selection), self._config.selection
            assert role is not None  # or a scorer computes it
            tally = await self._ask(reward_plan(role, selection, self._environments, models), trajectories)
        if tally.stop is not None:
            raise Stopped(tally.stop)
        had, failed = tally.done + tally.skipped, tally.failed.total()
        _refuse_failed(failed, had, f"scores failed (most: {_commonest(tally.failed)})", self._config)
        tokens = self._writer.tokens_of(iteration, scoring=True)
        return {"scores": had, "failed": dict(tally.failed), "unusable": tally.unusable, "tokens": tokens}

    def _shown(self, run: RunReader, iteration: int) -> Iterator[Numbered]:
        """Yield the finished conversations of an iteration, showing how far their scores are."""
        assert self._conductor is not None
        total = run.rows(_FINISHED, (iteration,))[0][0]
        for place, numbered in enumerate(run.numbered(finished=True, iteration=iteration)):
            self._conductor.step(f"Iteration {iteration}, scores", place / total)
            yield numbered

    def _compute(self, scorer: NamedScorer, trajectories: Iterable[Numbered]) -> dict[str, Any]:
        environments = {each.name: each for each in self._environments}
        found = compute_scores(trajectories, [scorer], environments, self._writer)
        what = f"conversations failed in the scorer {scorer.name} (see the run's log)"
        _refuse_failed(found.failed.total(), found.conversations, what, self._config)
        return {"scores": found.new, "failed": dict(found.failed)}

    async def _ask(self, plan: Plan, trajectories: Iterable[Numbered]) -> ScoreTally:
        """Ask for the scores that are missing, within what is left of the run's budget; the tally says how it went."""
        assert self._conductor is not None
        totals, gate, asking = self._writer.totals(scoring=True), Gate(), Asking(seed=self._config.seed)
        tally = ScoreTally(self._config.budget, totals.tokens, totals.cost)
        tally.check_budget()
        at_once = self._config.concurrency
        work = ask_all(trajectories, plan.items, asking, self._writer, tally, concurrency=at_once, gate=gate)
        async with self._pausing(gate, tally):
            await self._conductor.judge(asyncio.ensure_future(work), tally)
        return tally

    async def _prove(self, models: Models, proof: Proof) -> dict[str, Any]:
        rows, before, now = proof
        return await prove_served(models["agent"].backend, rows, before, now)


def _check(tally: Tally, config: SimulationConfig) -> None:
    """Raise Stopped or InfluenceError if the conversations cannot be gone on from."""
    if tally.stop == "alike":
        raise InfluenceError(f"All conversations failed alike: {tally.last_failure.rstrip('.')}.", hint=_AGAIN)
    if tally.stop is not None or tally.done < tally.total:
        raise Stopped(tally.stop or "signal")
    what = f"conversations failed (last: {tally.last_failure.rstrip('.')})"
    _refuse_failed(tally.failed, tally.done, what, config)


def _refuse_failed(failed: int, ended: int, what: str, config: SimulationConfig) -> None:
    """Raise InfluenceError if more failed than is allowed; the stage is not stored then, and repeats what failed."""
    if not ended or failed / ended <= config.max_failed_share:
        return
    allowed = f"more than the {config.max_failed_share:.0%} that max_failed_share allows"
    error = InfluenceError(f"{failed:,} of {ended:,} {what}, {allowed}.", hint=_AGAIN)
    error.exit_code = EXIT_FAILURES
    raise error


def _commonest(failures: Counter[str]) -> str:
    return next((kind.replace("_", " ") for kind, _ in failures.most_common(1)), "")


_AGAIN = "They are tried again with --resume."


def phase_config(config: TrainConfig, iteration: int, split: Split) -> TrainConfig:
    """Return the settings of an iteration's conversations of one split.

    Those from held-out states are drawn alike in every iteration, so that iterations differ by the agent alone.
    """
    if split == "train":
        return config.model_copy(update={"split": split, "seed": iteration_seed(config, iteration)})
    evaluation = config.evaluation
    changes = {"split": split, "seed": derive_seed("evaluation", config.seed), "n": evaluation.n}
    return config.model_copy(update={**changes, "samples": evaluation.samples, "population_by": "sample"})


def iteration_seed(config: TrainConfig, iteration: int) -> int:
    """Return the seed of an iteration's training conversations and of what is learnt from them."""
    return derive_seed("iteration", config.seed, iteration)
