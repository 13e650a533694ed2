"""One sitting of scoring: what needs no judge, what is asked, what follows from it, and the figures.

Invariant: everything is stored in the run as it comes; the result only reads it back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from influence_cli.environments.environment import Environment, Episode
from influence_cli.errors import EXIT_DONE, EXIT_FAILURES, EXIT_STOPPED, InfluenceError
from influence_cli.schemas.configs import Budget, RunManifest, SimulationConfig
from influence_cli.schemas.messages import Role
from influence_cli.schemas.records import EpisodeKey
from influence_cli.scoring.batching import BatchReport, BatchScoring
from influence_cli.scoring.computed import ComputedTally, NamedScorer, compute_scores
from influence_cli.scoring.control import CONTROL, control_episodes, store_control_shifts
from influence_cli.scoring.figures import disagreements, score_figures
from influence_cli.scoring.injection import store_injection_shifts
from influence_cli.scoring.judging import Asking
from influence_cli.scoring.plan import Plan
from influence_cli.scoring.probes import store_shifts
from influence_cli.scoring.running import Numbered, ScoreTally, ask_all, ended
from influence_cli.scoring.shards import key_of
from influence_cli.scoring.shift import shift_figures
from influence_cli.simulation.calls import Run
from influence_cli.simulation.models import RoleModel
from influence_cli.simulation.runner import Runner
from influence_cli.simulation.tally import Tally
from influence_cli.store.batches import BatchFolder
from influence_cli.store.reader import RunReader
from influence_cli.store.run_directory import MANIFEST, RunDirectory, create_run, open_run
from influence_cli.store.writer import RunWriter

Told = Callable[[str, float], None]
"""Hears what is being done and how far it is, from 0 to 1."""


@dataclass
class ScoreRequest:
    """Everything that a sitting needs, resolved."""

    plan: Plan
    asking: Asking
    scorers: Sequence[NamedScorer] = ()
    budget: Budget = field(default_factory=Budget)
    concurrency: int = 32
    limit: int | None = None
    batch: bool = False
    wait: bool = True
    poll_seconds: float = 30.0
    control: Mapping[Role, RoleModel] | None = None
    """The models of the control conversations; None: none are had."""
    only: Collection[EpisodeKey] | None = None
    """Which conversations are scored; None: all."""


@dataclass
class ScoreResult:
    """What came of it, and what the run now holds of what was asked."""

    tally: ScoreTally
    computed: ComputedTally = field(default_factory=ComputedTally)
    batches: BatchReport | None = None
    control: Tally | None = None
    homeless: int = 0
    given_up: str = ""
    """Which shards were given up, and why: their scores are missing."""
    figures: list[dict[str, Any]] = field(default_factory=list)
    disagreements: list[dict[str, Any]] = field(default_factory=list)
    shifts: list[dict[str, Any]] = field(default_factory=list)

    def ending(self, allowed: float) -> tuple[int, str]:
        """Return the exit code of a sitting of which the share ``allowed`` may fail, and what a person has to know of it."""
        tally = self.tally
        if self.given_up:
            return EXIT_FAILURES, f"Scores are missing: {self.given_up}. The same command goes on."
        if tally.stop is not None:
            return EXIT_STOPPED, ""
        failed = tally.failed.total()
        if tally.done and failed / tally.done > allowed:
            more = f"more than --max-failed-share allows ({allowed:.0%})"
            return EXIT_FAILURES, f"{failed:,} of {tally.done:,} scores failed, {more}."
        return EXIT_DONE, ""


class ScoreSitting:
    """Scores one run: :meth:`score` once; :meth:`stop` at any time from the same event loop."""

    def __init__(self, directory: RunDirectory, request: ScoreRequest, told: Told = lambda _step, _share: None) -> None:
        self._directory = directory
        self._request = request
        self._told = told
        self._runner: Runner | None = None
        self.tally = ScoreTally(budget=request.budget)

    def stop(self) -> None:
        """Begin no further question; what is in flight has some seconds to be stored."""
        self.tally.halt()
        if self._runner is not None:
            self._runner.stop()

    async def score(self) -> ScoreResult:
        """Score what is missing; return what came of it."""
        request, plan = self._request, self._request.plan
        result = ScoreResult(self.tally)
        with self._directory.writer() as writer, RunReader(self._directory) as reader:
            if request.scorers:
                everything = self._trajectories(reader, "Computing")
                result.computed = compute_scores(everything, request.scorers, plan.environments, writer)
            if plan.asks_judges or plan.asks_user:
                result.batches = await self._ask(plan, self._directory, reader, writer)
            if plan.injection:
                store_injection_shifts(reader, writer)
            if plan.probes:
                store_shifts(reader, writer)
                if request.control is not None and self.tally.stop is None:
                    result.control = await self._control(reader, writer, request.control)
            add_figures(result, request, reader)
        return result

    async def _ask(
        self, plan: Plan, directory: RunDirectory, reader: RunReader, writer: RunWriter
    ) -> BatchReport | None:
        """Put a plan's questions to the conversations of ``directory``."""
        request = self._request
        trajectories = self._trajectories(reader, "Judging" if directory is self._directory else "Probing the control")
        if not request.batch:
            asking = ask_all(
                trajectories, plan.items, request.asking, writer, self.tally, concurrency=request.concurrency
            )
            await ended(asyncio.ensure_future(asking), self.tally)
            return None
        models = [*plan.judges, *((plan.user,) if plan.user and plan.asks_user else ())]
        batches = BatchScoring(models, request.asking, writer, BatchFolder(directory.path), self.tally)

        def told(report: BatchReport) -> None:
            answered = sum(progress.answered + progress.failed for progress in report.waiting.values())
            total = sum(progress.total for progress in report.waiting.values())
            self._told("Waiting for the batch", answered / total if total else 0.0)

        running = batches.run(trajectories, plan.items, wait=request.wait, every=request.poll_seconds, told=told)
        await ended(asyncio.ensure_future(running), self.tally)
        return batches.report

    def _trajectories(self, reader: RunReader, step: str) -> Iterator[Numbered]:
        """Yield the conversations that are over, telling how far it is."""
        total = reader.rows("SELECT count(*) FROM trajectory WHERE status = 'complete'")[0][0]
        total = max(1, min(total, self._request.limit or total))
        for place, numbered in enumerate(self._wanted(reader)):
            self._told(step, place / total)
            yield numbered

    def _wanted(self, reader: RunReader) -> Iterator[Numbered]:
        only, everything = self._request.only, reader.numbered(finished=True)
        if only is None:
            return islice(everything, self._request.limit)
        return (numbered for numbered in everything if key_of(numbered[1]) in only)

    async def _control(self, reader: RunReader, writer: RunWriter, models: Mapping[Role, RoleModel]) -> Tally:
        """Have the control conversations that are missing, probe their users, and keep their shifts in the run."""
        environments = self._request.plan.environments
        control = control_directory(self._directory, models)
        config = self._directory.manifest.config.model_copy(
            update={"veto": False, "budget": self._left(), "concurrency": self._request.concurrency}
        )
        with control.writer() as journal:
            journal.reopen_failed()
            had = islice(reader.numbered(finished=True), self._request.limit)
            waiting = list(control_episodes(had, environments))
            tally = Tally(total=max(1, len(waiting)), budget=config.budget, stop_after_alike=config.stop_after_alike)
            self._told("Talking with a neutral agent", 0.0)
            await self._talk(Run(config, models, journal, tally), list(environments.values()), waiting, journal)
            journal.set_state("stopped" if tally.stop else "done")
            if tally.stop in ("cost", "tokens", "signal"):
                self.tally.stop = self.tally.stop or tally.stop
            with RunReader(control) as other:
                if self.tally.stop is None:
                    probes = Plan(probes=True, user=self._request.plan.user, environments=environments)
                    await self._ask(probes, control, other, journal)
                store_shifts(other, journal)
                store_control_shifts(reader, other, writer)
        writer.add_event("control", {"path": str(CONTROL), "conversations": len(waiting), "failed": tally.failed})
        return tally

    async def _talk(
        self, run: Run, environments: list[Environment], waiting: list[Episode], journal: RunWriter
    ) -> None:
        if not waiting:
            return
        self._runner = Runner(run, environments, journal, waiting=iter(waiting))
        try:
            await self._runner.simulate()
        finally:
            self._runner = None

    def _left(self) -> Budget:
        """Return what is left of the budget."""
        budget, tally = self._request.budget, self.tally
        return Budget(
            cost=None if budget.cost is None else max(1e-9, budget.cost - tally.cost),
            tokens=None if budget.tokens is None else max(1, budget.tokens - tally.tokens),
        )


def add_figures(result: ScoreResult, request: ScoreRequest, reader: RunReader) -> None:
    """Add to ``result`` what the run now holds of what was asked."""
    plan = request.plan
    scorers = {named.name for named in request.scorers}
    if plan.probes:
        result.shifts = shift_figures(reader)
    result.homeless = len(plan.homeless)
    result.figures = score_figures(reader, lambda name, judge: name in plan.asked or judge in scorers)
    result.disagreements = disagreements(reader, plan.asked)


def control_directory(directory: RunDirectory, models: Mapping[Role, RoleModel]) -> RunDirectory:
    """Return the run's control, made if it is new; InfluenceError if it was made with another agent or user."""
    path = directory.path / CONTROL
    names = {role: str(model.name) for role, model in models.items()}
    if (path / MANIFEST).is_file():
        found = open_run(path)
        for role in ("agent", "user"):
            if found.manifest.models.get(role) != names.get(role):
                raise InfluenceError(
                    f"{path} was made with {found.manifest.models.get(role)} as {role}, not {names.get(role)}.",
                    hint="Name that model, or remove the folder to make the control anew.",
                )
        return found
    manifest: RunManifest = directory.manifest.model_copy(update={"command": "simulate", "models": names})
    return create_run(path, manifest)


def control_config(manifest: RunManifest) -> SimulationConfig:
    """Return the settings of the run's conversations; InfluenceError where it was not simulated here."""
    if not manifest.models:
        raise InfluenceError(
            "These conversations were not made here, so that they cannot be had again with a neutral agent.",
            hint="Leave out --control.",
        )
    return manifest.config
