"""One sitting of a training run: begun or taken up, gone through, summed up.

Invariant: a run directory is made only after every name and option has been resolved, so that a mistake leaves nothing
behind; models are loaded when their stage begins.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from influence_cli.backends.names import ModelName
from influence_cli.environments.environment import Environment
from influence_cli.environments.sampling import count_episodes
from influence_cli.errors import EXIT_DONE, EXIT_STOPPED, InfluenceError, UnknownNameError
from influence_cli.launching.signals import interrupted_by_stops
from influence_cli.listening import Advance, Listener
from influence_cli.plugins.component import Component
from influence_cli.plugins.options import validate_options
from influence_cli.plugins.registry import PluginRegistry
from influence_cli.resolution import agent_name, roles_of
from influence_cli.schemas.configs import SelectionConfig, TrainConfig
from influence_cli.schemas.messages import Role
from influence_cli.schemas.records import RunState
from influence_cli.schemas.training import RowsWanted
from influence_cli.scoring.computed import NamedScorer
from influence_cli.scoring.running import ScoreTally, ended
from influence_cli.settings import changed_from
from influence_cli.simulation.models import EMBEDDED_MINIMUM_MASS, EMBEDDED_NOTE, RoleModel
from influence_cli.simulation.runner import Runner, start_tally
from influence_cli.simulation.tally import Tally, used_up
from influence_cli.sittings.beginning import begin_run, take_up_run
from influence_cli.sittings.lines import line, score_line
from influence_cli.sittings.loading import role_models, tell_models
from influence_cli.sittings.logs import logged
from influence_cli.sittings.score.resolving import named_scorer
from influence_cli.sittings.simulate import IN_TIME, settled, stopping
from influence_cli.sittings.sources import Sources
from influence_cli.sittings.training_source import check_source, open_source, settled_source
from influence_cli.store.reader import RunReader
from influence_cli.store.run_directory import RunDirectory
from influence_cli.store.steering import unpause_run
from influence_cli.store.writer import RunWriter
from influence_cli.training.conversing import Models, Stopped, phase_config
from influence_cli.training.estimate import TrainEstimate, estimate_training
from influence_cli.training.loop import Loop, Training
from influence_cli.training.protocol import Algorithm, ChecksBase, Tracker
from influence_cli.training.report import training_figures
from influence_cli.training.rewards import asked_scores, reward_role
from influence_cli.training.shapes import find_shape
from influence_cli.training.tracking import Tracking

_FREE_TO_CHANGE = (
    "iterations", "concurrency", "budget", "prices", "max_failed_share", "stop_after_alike", "cache", "trackers",
    "selection", "layout", "algorithm",
)  # fmt: skip
"""What shapes no conversation that is to be had alike; a changed selection or algorithm holds for what is not yet learnt,
and the run remembers that it was changed."""
_WIDER = "Where each initial state has one conversation, the best of a scenario are looked for (selection.level)."
_SCORE_ROLES: tuple[Role, ...] = ("judge",)


@dataclass
class TrainPlan:
    """Everything that a training run needs, resolved; ``models`` have names and settings, and are not loaded."""

    registry: PluginRegistry
    config: TrainConfig
    environments: list[Environment]
    models: dict[Role, RoleModel]
    algorithm: Algorithm | None
    trackers: dict[str, Tracker]
    directory: RunDirectory | None
    resumed: bool = False
    scorer: NamedScorer | None = None
    notes: tuple[str, ...] = ()
    """What was settled that nobody asked for."""


@dataclass(frozen=True)
class TrainResult:
    """How a sitting ended."""

    path: Path
    state: RunState
    iterations: list[dict[str, Any]]
    exit_code: int
    reason: str = ""
    notes: tuple[str, ...] = field(default=())
    idle: bool = False
    """Whether nothing was left to do."""
    limit: Literal["cost", "tokens"] | None = None
    """Which budget is used up."""

    def document(self) -> dict[str, Any]:
        """Return the documented object ``influence.train/1``."""
        return {
            "schema": "influence.train/1",
            "run": str(self.path),
            "state": self.state,
            "reason": self.reason or None,
            "iterations": self.iterations,
            "notes": list(self.notes),
        }


def begin(
    registry: PluginRegistry, sources: Sources, out: Path | None, heard: Listener, *, dry: bool = False
) -> TrainPlan:
    """Return a new run's plan, its directory made unless ``dry``; InfluenceError for whatever the user can mend."""
    config = settled_source(sources.new(TrainConfig), heard.warn)
    plan = _plan(registry, config, sources.folders, heard, dry=dry)
    check_source(registry, plan.config, plan.environments, heard.warn)
    return plan if dry else begin_run(registry, "train", plan, out)


def take_up(registry: PluginRegistry, name: str, sources: Sources, heard: Listener, *, dry: bool = False) -> TrainPlan:
    """Return the plan that goes on with the run ``name``; InfluenceError if it was made under other conditions."""

    def resolve(config: TrainConfig) -> TrainPlan:
        return _plan(registry, config, (), heard, dry=dry)

    return take_up_run(registry, name, sources, TrainConfig, resolve, free=_FREE_TO_CHANGE)


def laid_out(plan: TrainPlan, out: Path | None) -> RunDirectory:
    """Return the run's directory, made or brought up to date for another process to take up."""
    if plan.directory is None:
        begin_run(plan.registry, "train", plan, out)
    else:
        with plan.directory.writer():
            plan.directory.remember(plan.config)
    assert plan.directory is not None
    return plan.directory


def _plan(
    registry: PluginRegistry, config: TrainConfig, folders: Sequence[Path], heard: Listener, *, dry: bool
) -> TrainPlan:
    config, environments = settled(registry, config, folders)
    for split in ("train", "heldout"):
        start_tally(environments, phase_config(config, 0, split))
    scorer = _reward_scorer(registry, config.selection)
    algorithm = registry.component("algorithm", config.algorithm.name)
    options = validate_options(algorithm, config.algorithm.options, flag="--algo-option ")
    notes: tuple[str, ...] = ()
    if config.source.run is None or config.iterations > 1:
        config, notes = _comparable(environments, config, lambda: rows_wanted(algorithm, options))
    if rows_wanted(algorithm, options) == "all":
        told = f"{config.algorithm.name} learns from all conversations: nothing is selected, and no veto counts."
        notes = (*notes, told)
    trackers: dict[str, Tracker] = {}
    for name, own in config.trackers.items():
        component = registry.component("tracker", name)
        checked = validate_options(component, own, flag=f"--set trackers.{name}.")
        if not dry:
            trackers[name] = component.load()(checked)
    models = role_models(registry, config, heard, roles=_roles(config), load=False)
    made: Algorithm | None = None if dry else algorithm.load()(options)
    if isinstance(made, ChecksBase):
        made.check_base(agent_name(config).base)
    return TrainPlan(registry, config, environments, models, made, trackers, None, scorer=scorer, notes=notes)


def _reward_scorer(registry: PluginRegistry, selection: SelectionConfig) -> NamedScorer | None:
    """Return the scorer that computes the reward; None where ratings are the reward, or a model is asked for it.

    InfluenceError unless a score is named where one is the reward, and only there.
    """
    if selection.reward != "score":
        if selection.rubric is not None:
            raise InfluenceError("A rubric is used only with the reward score.", hint="Add --reward score.")
        return None
    if selection.rubric is None:
        raise InfluenceError(
            "The reward score needs the name of one.", hint="For instance --set selection.rubric=harm."
        )
    asked = asked_scores()
    if selection.rubric in asked:
        return None
    scorers = [offer.component.name for offer in registry.offers("scorer")]
    name = selection.rubric.partition("/")[0]
    if name not in scorers:
        raise UnknownNameError("rubric or scorer", name, sorted([*asked, *scorers]))
    return named_scorer(registry, name, "")


def _comparable(
    environments: Sequence[Environment], config: TrainConfig, wants: Callable[[], RowsWanted]
) -> tuple[TrainConfig, tuple[str, ...]]:
    """Return the settings with groups that hold two conversations, and a line on it where nobody asked for them.

    Where each initial state has one conversation, and no level was named, the best of a scenario are looked for.
    InfluenceError where that is not what was asked for, or nothing that the algorithm can learn from.
    """
    level = config.selection.level
    if level != "initial-state" and wants() == "pairs":
        raise InfluenceError(
            f"{config.algorithm.name} learns from pairs of answers to one initial state; the level {level} compares others.",
            hint="Leave out --level.",
        )
    phase = phase_config(config, 0, "train")
    states = count_episodes(environments, phase.model_copy(update={"n": None, "samples": 1}))
    if config.samples > 1 or count_episodes(environments, phase) > states:
        return config, ()
    within = wants() in ("pairs", "all")
    if not within and level != "initial-state":
        return config, ()
    if within or "level" in config.selection.model_fields_set:
        wider = "" if within else ", or compare more widely: --level scenario"
        raise InfluenceError(
            "Each initial state has one conversation: there is nothing to compare it with.",
            hint=f"Raise --samples{wider}.",
        )
    selection = config.selection.model_copy(update={"level": "scenario"})
    return config.model_copy(update={"selection": selection}), (_WIDER,)


def _roles(config: TrainConfig) -> tuple[Role, ...]:
    """Return the roles that models play: a judge only where one is asked for the reward."""
    return roles_of(config) + (_SCORE_ROLES if reward_role(config.selection) == "judge" else ())


def estimated(plan: TrainPlan) -> TrainEstimate:
    """Return what the run takes."""
    component = plan.registry.component("algorithm", plan.config.algorithm.name)
    options = validate_options(component, plan.config.algorithm.options, flag="--algo-option ")
    shapes = {model.name.base: find_shape(model.name.model) for model in plan.models.values()}
    wants = rows_wanted(component, options)
    return estimate_training(plan.environments, plan.config, plan.models, shapes, options.model_dump(), wants)


def rows_wanted(component: Component[Algorithm], options: BaseModel) -> RowsWanted:
    """Return what an algorithm learns from; one whose class says so is not made, which may take a key."""
    kind = component.load()
    wants: RowsWanted | property | None = getattr(kind, "wants", None)
    return wants if isinstance(wants, str) else kind(options).wants


def go(plan: TrainPlan, heard: Listener) -> TrainResult:
    """Go through the iterations of ``plan``; return how it went. The store is closed and the state set in any case."""
    directory, algorithm = plan.directory, plan.algorithm
    assert directory is not None
    assert algorithm is not None
    tell_models(plan.config, plan.models, heard.say)
    tracking = Tracking(plan.trackers)
    training = Training(
        plan.config,
        plan.environments,
        algorithm,
        directory,
        agent_name(plan.config),
        tracking,
        plan.scorer,
        partial(open_source, plan.registry, plan.config, heard.warn) if plan.config.source.run else None,
    )
    state: RunState = "failed"
    reason = ""
    limit: Literal["cost", "tokens"] | None = None
    stages = -1
    with directory.writer() as writer, logged(directory.path / "logs", heard.say), heard.progress() as advance:
        writer.set_state("running")
        if plan.resumed:
            changed = changed_from(directory.manifest.config, plan.config)
            stages = len(writer.finished_stages())
            writer.add_event("resume", {"stages": stages, "changed_from": changed})
        directory.remember(plan.config)
        unpause_run(directory.path)  # one that an earlier sitting left behind
        tracking.start(directory, resumed=plan.resumed)
        try:
            with interrupted_by_stops():
                Loop(training, writer, _Conductor(plan, heard, advance)).run()
            state = "done"
        except Stopped as stop:
            state = "stopped"
            limit = stop.reason if stop.reason in ("cost", "tokens") else None
            reason = used_up(limit, plan.config.budget) if limit else "stopped by a signal"
        except KeyboardInterrupt:
            state, reason = "stopped", "stopped by a signal"
        finally:
            idle = state == "done" and stages == len(writer.finished_stages())
            _end(writer, tracking, state, reason)
    return replace(_result(plan, directory, state, reason, tracking), idle=idle, limit=limit)


def _end(writer: RunWriter, tracking: Tracking, state: RunState, reason: str) -> None:
    tracking.close(state)
    with suppress(InfluenceError):
        writer.set_state(state)
        if reason:
            writer.add_event("stop", {"reason": reason})


def _result(plan: TrainPlan, directory: RunDirectory, state: RunState, reason: str, tracking: Tracking) -> TrainResult:
    notes = [f"The tracker {name} failed and was left out: {told}" for name, told in tracking.failed.items()]
    if any(model.minimum_mass == EMBEDDED_MINIMUM_MASS for model in plan.models.values()):
        notes.append(EMBEDDED_NOTE)
    with RunReader(directory) as run:
        figures = training_figures(run)
    notes += without_veto(figures)
    if plan.algorithm is not None and plan.algorithm.wants == "best":
        notes += unlikelier(figures)
    return TrainResult(directory.path, state, figures, EXIT_STOPPED if reason else EXIT_DONE, reason, tuple(notes))


def without_veto(figures: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a line on each iteration that learnt from conversations which nobody could veto."""
    selected = ((row["iteration"], row["stages"]["select"] or {}) for row in figures)
    return [
        f"In iteration {iteration}, {found['without_veto']:,} of {found['candidates']:,} conversations have no usable veto: "
        "they could be learnt from whatever they hold."
        for iteration, found in selected
        if found.get("without_veto")
    ]


def unlikelier(figures: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a line on each iteration whose training made the replies that it imitates less likely."""
    trained = ((row["iteration"], (row["stages"]["train"] or {}).get("moved")) for row in figures)
    return [
        f"Training in iteration {iteration} made its own replies less likely (log-probability {moved:+.3f} a token): "
        "the learning rate may be too high."
        for iteration, moved in trained
        if moved is not None and moved < 0.0
    ]


class _Conductor:
    """Loads models by name, and shows how conversations and training go."""

    def __init__(self, plan: TrainPlan, heard: Listener, advance: Advance) -> None:
        self._plan = plan
        self._heard = heard
        self._advance = advance

    def models(self, agent: ModelName) -> Models:
        """Return the models of all roles, loaded."""
        config = self._plan.config
        price = config.prices.get(agent_name(config).base)
        if price is not None:
            config = config.model_copy(update={"prices": {**config.prices, agent.base: price}})
        return role_models(self._plan.registry, config, self._heard, roles=_roles(config), agent=agent)

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Run ``work`` in an event loop of its own."""
        try:
            import uvloop
        except ImportError:
            asyncio.run(work)
        else:
            uvloop.run(work)

    async def converse(self, runner: Runner, tally: Tally, title: str) -> None:
        """Have the conversations, showing how they go."""
        self._heard.say(f"{title} ...")
        conversations = asyncio.ensure_future(runner.simulate())
        notes = {"Run": title}
        with stopping(conversations, tally, runner.stop, IN_TIME, self._heard):
            display = asyncio.create_task(self._heard.follow(tally, notes))
            try:
                with suppress(asyncio.CancelledError):
                    await conversations
            finally:
                display.cancel()
                await asyncio.gather(display, return_exceptions=True)
        self._heard.say(line(tally))

    async def judge(self, asking: asyncio.Future[None], tally: ScoreTally) -> None:
        """Have scores asked for."""
        with stopping(asking, tally, tally.halt, IN_TIME, self._heard):
            await ended(asking, tally)
        self._heard.say(score_line(tally))

    def step(self, title: str, share: float) -> None:
        """Show how far a step is."""
        self._advance(title, share)

    def told(self, share: float, words: str) -> None:
        """Show how far training is."""
        self._advance("Training", share, words)
