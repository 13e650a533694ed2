"""One sitting of a simulation: begun or taken up, talked through, summed up.

Invariant: a run directory is made only after every name, option and model has been resolved, so that a mistake leaves
nothing behind.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from influence_cli.environments.environment import Environment
from influence_cli.environments.questions import with_questions
from influence_cli.environments.sampling import episodes
from influence_cli.errors import InfluenceError
from influence_cli.launching.signals import hearing_stops
from influence_cli.listening import Listener
from influence_cli.plugins.registry import PluginRegistry
from influence_cli.resolution import (
    close_models,
    find_environments,
    lasting_names,
    with_default_model,
)
from influence_cli.schemas.configs import SimulationConfig
from influence_cli.schemas.messages import Role
from influence_cli.schemas.records import RunState
from influence_cli.settings import changed_from
from influence_cli.sharding.gathering import gather_shards
from influence_cli.simulation.calls import Run
from influence_cli.simulation.estimate import Estimate, conversations_in_cache, estimate
from influence_cli.simulation.gate import follow
from influence_cli.simulation.models import RoleModel
from influence_cli.simulation.runner import GRACE, Runner, start_tally
from influence_cli.simulation.shards import counters, hand_over, shard_config
from influence_cli.simulation.sitting import Sitting, state_of
from influence_cli.simulation.summing import Summary, summarised
from influence_cli.simulation.tally import Stoppable, Tally
from influence_cli.sittings.beginning import begin_run, take_up_run
from influence_cli.sittings.changes import refuse_fewer
from influence_cli.sittings.loading import role_models, tell_models
from influence_cli.sittings.logs import logged
from influence_cli.sittings.sources import Sources
from influence_cli.store.beats import EVERY, beat_file, write_beat
from influence_cli.store.run_directory import RunDirectory
from influence_cli.store.shards import Shard
from influence_cli.store.steering import is_paused, unpause_run
from influence_cli.store.writer import RunWriter

C = TypeVar("C", bound=SimulationConfig)
_COLLECT_AFTER = 20_000
"""Objects made before the collector looks for cycles among them."""
IN_TIME = f"gets {GRACE:.0f} s to finish"
"""What becomes of what is in flight when a run is told to stop."""


def begin(
    registry: PluginRegistry,
    sources: Sources,
    out: Path | None,
    heard: Listener,
    *,
    dry: bool = False,
    load: bool = True,
) -> Sitting:
    """Return a new sitting, its run directory made unless ``dry``; InfluenceError for whatever the user can mend.

    Without ``load`` the models have names and settings, for who has the conversations had by others.
    """
    sitting = _resolved(registry, sources.new(SimulationConfig), sources.folders, heard, load=load)
    return sitting if dry else begin_run(registry, "simulate", sitting, out)


def take_up(
    registry: PluginRegistry,
    name: str,
    sources: Sources,
    heard: Listener,
    *,
    shard: Shard | None = None,
    load: bool = True,
) -> Sitting:
    """Return the sitting that goes on with the run ``name``, or with a ``shard`` of it, as :func:`begin` does.

    InfluenceError if it was made under other conditions.
    """

    def resolve(config: SimulationConfig) -> Sitting:
        return _resolved(registry, config, (), heard, load=load)

    sitting = take_up_run(registry, name, sources, SimulationConfig, resolve, shard=shard)
    directory = sitting.directory
    assert directory is not None
    refuse_fewer(directory.manifest.config, sitting.config, sitting.environments, directory.path)
    if shard is not None:
        hand_over(directory, sitting.environments, sitting.config)
        sitting.config = shard_config(sitting.config, shard)
    return sitting


def _resolved(
    registry: PluginRegistry, config: SimulationConfig, folders: Sequence[Path], heard: Listener, *, load: bool
) -> Sitting:
    """Return a sitting with environments settled and models, without a directory; InfluenceError for what is wrong."""
    config, environments = settled(registry, config, folders)
    return Sitting(config, environments, role_models(registry, config, heard, load=load), None)


def settled(registry: PluginRegistry, config: C, folders: Sequence[Path]) -> tuple[C, list[Environment]]:
    """Return the settings with environments by names that hold anywhere, and these; InfluenceError for what is wrong."""
    names = tuple(dict.fromkeys(config.environments))
    found = find_environments(registry, names, folders)
    environments = [with_questions(environment, config.questions) for environment in found]
    for environment in environments:
        environment.mix(config.populations)
        environment.refuse_silent(config.cue)
    start_tally(environments, config)
    lasting = lasting_names(names, environments, folders)  # a run is taken up from anywhere
    return with_default_model(config.model_copy(update={"environments": lasting})), environments


def estimated(sitting: Sitting) -> tuple[SimulationConfig, dict[Role, RoleModel], Estimate]:
    """Return the resolved settings and models, and what the run would take at most."""
    return sitting.config, sitting.models, estimate(sitting.environments, sitting.config, sitting.models)


def talk(sitting: Sitting, heard: Listener) -> Summary:
    """Have the conversations of ``sitting``; return how it went. The store is closed and the state set in any case."""
    assert sitting.directory is not None
    directory = sitting.directory
    if sitting.shard is None:
        tell_models(sitting.config, sitting.models, heard.say)
        if sitting.resumed:
            gather_shards(directory)
    with directory.writer() as writer, logged(directory.path / "logs", heard.say):
        if sitting.shard is None:
            directory.remember(sitting.config)
        return _run_loop(partial(_talk, sitting, directory, writer, heard))


def _run_loop(work: Callable[[], Coroutine[Any, Any, Summary]]) -> Summary:
    try:
        import uvloop
    except ImportError:
        with _few_collections():
            return asyncio.run(work())
    with _few_collections():
        summary: Summary = uvloop.run(work())
    return summary


@contextmanager
def _few_collections() -> Iterator[None]:
    """Spare the collector, during the block, what was there before.

    Conversations make much short-lived data and few cycles: to look at what start-up left behind again and again is a
    fifth of the client's CPU otherwise (benchmarks/results/orchestration.json).
    """
    threshold, frozen = gc.get_threshold(), gc.get_freeze_count()
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER)
    try:
        yield
    finally:
        gc.set_threshold(*threshold)
        if not frozen:  # what somebody else froze stays so
            gc.unfreeze()


async def _talk(sitting: Sitting, directory: RunDirectory, writer: RunWriter, heard: Listener) -> Summary:
    config = sitting.config
    tally = start_tally(sitting.environments, config)
    shard, waiting = sitting.shard, None
    if shard is not None:
        tally.total = shard.count(tally.total)
        waiting = shard.share(episodes(sitting.environments, config))
    if sitting.resumed:
        _carry_over(tally, writer, changed_from(directory.manifest.config, config), heard)
    run = Run(config, sitting.models, writer, tally)
    runner = Runner(run, sitting.environments, writer, at_once=_at_once(sitting, heard), waiting=waiting)
    writer.set_state("running")
    if shard is None:
        unpause_run(directory.path)  # one that an earlier sitting left behind
    loop = asyncio.get_running_loop()
    notes = {"Run": str(directory.path), "Model": ", ".join(sorted({str(m.name) for m in sitting.models.values()}))}
    started = loop.time()
    state: RunState = "failed"
    conversations = asyncio.ensure_future(runner.simulate())
    with stopping(conversations, tally, runner.stop, IN_TIME, heard):
        pausing = asyncio.create_task(
            follow(run.gate, partial(_pauses, directory.path, tally), partial(_tell_pause, writer, tally, heard))
        )
        display = asyncio.create_task(heard.follow(tally, notes))
        beating = None if shard is None else asyncio.create_task(_beat(directory, tally))
        try:
            with suppress(asyncio.CancelledError):
                await conversations
            state = state_of(tally, config)
        finally:
            for beside in filter(None, (pausing, display, beating)):
                beside.cancel()
                await asyncio.gather(beside, return_exceptions=True)
            await close_models(sitting.models)
            rating = None
            with suppress(InfluenceError):
                rating = writer.totals().mean_rating
                writer.set_state(state)
                if tally.stop:
                    writer.add_event("stop", {"reason": tally.stop})
    if tally.done < tally.total or tally.complete + tally.failed:
        heard.ended(tally)
    return summarised(directory.path, state, tally, rating, config, loop.time() - started, sitting.models)


async def _beat(directory: RunDirectory, tally: Tally) -> None:
    """Tell the counters of a shard until cancelled, and once more then."""
    file = beat_file(directory)
    try:
        while True:
            write_beat(file, counters(tally))
            await asyncio.sleep(EVERY)
    finally:
        write_beat(file, counters(tally))


def _pauses(path: Path, tally: Tally) -> bool:
    """Return whether no new call is to begin; a run that stops goes on to its end."""
    return tally.stop is None and is_paused(path)


def _tell_pause(writer: RunWriter, tally: Tally, heard: Listener, paused: bool) -> None:
    """Remember that the run pauses or goes on, and say so."""
    if tally.stop is None:
        writer.add_event("pause" if paused else "unpause", {})
        heard.say("Paused: no new call is begun." if paused else "Going on.")


def _at_once(sitting: Sitting, heard: Listener) -> int:
    """Return how many conversations to have at once: as asked for, or as many as a local prefix cache can hold."""
    config = sitting.config
    room = conversations_in_cache(sitting.environments, config, sitting.models)
    if room is None or room >= min(config.concurrency, start_tally(sitting.environments, config).total):
        return config.concurrency
    heard.say(f"{room} conversations at once: more would push each other out of the model's memory (-o cache_mib=...).")
    return room


def _carry_over(tally: Tally, writer: RunWriter, changed: Mapping[str, Any], heard: Listener) -> None:
    reopened = writer.reopen_failed()
    totals = writer.totals()
    tally.earlier_done = writer.finished_count()
    tally.earlier_tokens = totals.tokens
    tally.earlier_cost = totals.cost
    tally.check_budget()
    writer.add_event("resume", {"finished": tally.earlier_done, "reopened": reopened, "changed_from": changed})
    again = f", {reopened} failed ones are tried again" if reopened else ""
    heard.say(f"{tally.earlier_done} of {tally.total} conversations are finished{again}.")


@contextmanager
def stopping(
    work: asyncio.Future[Any], tally: Stoppable, stop: Callable[[], None], in_flight: str, heard: Listener
) -> Iterator[None]:
    """First SIGINT or SIGTERM during the block: ``stop``, and say what becomes of what is ``in_flight``. Second: stop now."""

    def asked_to_stop() -> None:
        if tally.stop is None:
            stop()
            heard.say(f"Stopping: what is in flight {in_flight}; once more to stop now.")
        else:
            work.cancel()

    with hearing_stops(asked_to_stop):
        yield
