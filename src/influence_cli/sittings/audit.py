"""One sitting of an audit: a sample of conversations is had, then a judge is asked about it and about initial states.

Invariant: the sample is a run, and every answer of the judge is in the audit's folder before it is counted, so that an
audit that ended early, in whatever way, can be gone on with and pays for nothing twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from influence_cli.backends.cache import AnswerCache, CachedBackend
from influence_cli.environments.environment import Environment
from influence_cli.environments.sampling import episodes
from influence_cli.errors import EXIT_DONE, EXIT_FAILURES, EXIT_STOPPED, EXIT_USER, InfluenceError
from influence_cli.listening import Listener
from influence_cli.plugins.registry import PluginRegistry
from influence_cli.resolution import find_environments
from influence_cli.schemas.configs import SimulationConfig
from influence_cli.scoring.running import ended
from influence_cli.simulation.audit import QUESTIONS, WORTH, Audit, add_conversations, add_states, judge_all
from influence_cli.simulation.models import RoleModel
from influence_cli.simulation.sitting import Sitting
from influence_cli.simulation.summing import Summary
from influence_cli.simulation.tally import Tally, used_up
from influence_cli.sittings.loading import role_models
from influence_cli.sittings.opening import run_to_read
from influence_cli.sittings.simulate import IN_TIME, begin, stopping, take_up, talk
from influence_cli.sittings.sources import Sources
from influence_cli.sittings.stops import StoppedError, nothing_begun
from influence_cli.store.reader import RunReader
from influence_cli.store.run_directory import LATEST, MANIFEST, RUNS, find_run, fresh_directory, locked, refuse_filled

SAMPLE = 16
"""How many conversations are had, unless something else is asked for."""
EXAMPLES = 3
"""How many examples of each fault are given."""
_KEPT = "audit"
"""The folder, in that of an audit, that holds the judge's answers."""
_LOCK = "audit.lock"
"""The file in it that one audit at a time holds: two would each pay for what neither has."""


@dataclass(frozen=True)
class AuditRequest:
    """What was asked for; ``n`` is 0 for no conversations, None for as many as settings say."""

    environment: str
    n: int | None = None
    states: int | None = None
    concurrency: int = 32
    out: Path | None = None
    resume: bool = False


@dataclass(frozen=True)
class Audited:
    """What came of an audit; ``run`` is its sample, if it has one."""

    environment: str
    judge: str
    folder: Path
    run: Path | None
    found: Audit
    sample: Summary | None = None

    @property
    def reason(self) -> str | None:
        """Why judgements are missing, if some are."""
        stop = self.found.tally.stop
        if stop is None or not self.found.unasked:
            return None
        return used_up(stop, self.found.tally.budget) if stop in ("cost", "tokens") else "stopped by a signal"

    def ending(self, allowed: float) -> tuple[int, str]:
        """Return the exit code of an audit of which the share ``allowed`` may fail, and what a person has to know of it."""
        found = self.found
        if self.reason:
            told = f"{found.unasked:,} judgements were not asked for: {self.reason}."
            return EXIT_STOPPED, f"{told} {_to_go_on(self.folder)}"
        if found.failed_share > allowed:
            told = f"{found.failed_share:.0%} of the judgements failed, more than --max-failed-share allows ({allowed:.0%})."
            return EXIT_FAILURES, f"{told} {_to_go_on(self.folder)}"
        return (self.sample.exit_code if self.sample else EXIT_DONE), ""

    def document(self) -> dict[str, Any]:
        """Return the documented object ``influence.env.audit/1``."""
        found = self.found
        return {
            "schema": "influence.env.audit/1",
            "environment": self.environment,
            "judge": self.judge,
            "folder": str(self.folder),
            "run": str(self.run) if self.run else None,
            "state": "stopped" if self.reason else "done",
            "reason": self.reason,
            "states": found.states,
            "conversations": found.conversations,
            "ratings": {
                what: {question: found.mean(what, question) for question in QUESTIONS}
                for what in ("states", "conversations")
            },
            "lowest": {key: vars(example) for key, example in found.lowest().items()},
            "failed": found.failed,
            "unusable": found.unusable,
            "unasked": found.unasked,
            "tokens": found.tally.tokens,
            "cost": None if found.tally.unpriced_calls else found.tally.total_cost,
            "user_messages": found.user_messages,
            "worth": WORTH,
            "faults": {
                name: {
                    "count": len(examples),
                    "of": found.chances(name),
                    "examples": [vars(example) for example in examples[:EXAMPLES]],
                }
                for name, examples in found.faults.items()
            },
        }


def audit(registry: PluginRegistry, sources: Sources, request: AuditRequest, heard: Listener) -> Audited:
    """Have the sample, or what is missing of it, and everything judged that is not yet; return what came of it.

    InfluenceError for whatever the user can mend; StoppedError where the sample was stopped: then nothing is judged.
    """
    environment = find_environments(registry, [request.environment], sources.folders)[0]
    with nothing_begun():
        settings, folder, sitting = _begun(registry, sources, request, heard)
        judge = _judge(registry, settings, heard) if sitting is None else None
        folder = folder or fresh_directory(RUNS, _KEPT)
    heard.say(f"Answers are kept in {folder}.")
    with _resumable(folder):
        sample = _sample(sitting, heard) if sitting else None
        judge = _asked_once(judge or _judge(registry, settings, heard), folder)
        found = Audit(tally=_tally(settings, sample))
        states = islice(episodes([environment], SimulationConfig(seed=settings.seed)), request.states)
        add_states(found, states, settings.seed)
        if sample is not None:
            _add_sample(found, environment, sample, settings.seed, heard)
        with locked(folder, folder / _KEPT / _LOCK):
            asyncio.run(_ask(found, judge, request.concurrency, heard))
    return Audited(environment.name, str(judge.name), folder, sample.path if sample else None, found, sample)


def _begun(
    registry: PluginRegistry, sources: Sources, request: AuditRequest, heard: Listener
) -> tuple[SimulationConfig, Path | None, Sitting | None]:
    """Return the settings, the folder unless it is a new one, and the sample that is to be had, if one is."""
    folder = _folder_to_go_on_with(request.out) if request.resume else None
    if folder is not None and (folder / MANIFEST).is_file() and request.n != 0:
        sitting = take_up(registry, str(folder), sources, heard)
        _judge_exists(registry, sitting.config, heard)
        return sitting.config, folder, sitting
    settings = sources.new(SimulationConfig)
    _judge_exists(registry, settings, heard)
    if folder is not None:
        if request.n:
            raise InfluenceError(
                f"{folder} has no sample.", hint="Leave out --n to go on with it, or begin a new audit."
            )
        return settings, folder, None
    if request.n == 0:
        if request.out is not None:
            refuse_filled(request.out, resumable=(request.out / _KEPT).is_dir())
        return settings, request.out, None
    if settings.n is None:
        sources = replace(sources, flags={**sources.flags, "n": SAMPLE})
    sitting = begin(registry, sources, request.out, heard)
    assert sitting.directory is not None
    return sitting.config, sitting.directory.path, sitting


def _folder_to_go_on_with(out: Path | None) -> Path:
    """Return the folder of an audit: a run, or one that holds nothing but answers; InfluenceError if there is none."""
    if out is not None and (out / _KEPT).is_dir():
        return out
    return find_run(str(out) if out else LATEST)


def _judge_exists(registry: PluginRegistry, settings: SimulationConfig, heard: Listener) -> None:
    """Raise InfluenceError for what is wrong with the judge before the sample is had."""
    role_models(registry, settings, heard, roles=("judge",), load=False)


def _sample(sitting: Sitting, heard: Listener) -> Summary:
    """Return how the sample's conversations went; where it was stopped, or nothing can be asked, nothing is judged."""
    summary = talk(sitting, heard)
    if summary.exit_code == EXIT_USER:
        raise InfluenceError(f"The sample cannot be had: {summary.reason}.")
    if summary.exit_code == EXIT_STOPPED:
        told = f"The sample, {summary.path}, ended early: {summary.reason}. Nothing is judged."
        raise StoppedError(f"{told} {_to_go_on(summary.path)}")
    if summary.exit_code:
        heard.warn(f"The sample ended early: {summary.reason}. It is judged as it is.")
    return summary


def _judge(registry: PluginRegistry, settings: SimulationConfig, heard: Listener) -> RoleModel:
    return role_models(registry, settings, heard, roles=("judge",))["judge"]


def _asked_once(judge: RoleModel, folder: Path) -> RoleModel:
    """Return the judge as one who is asked only what ``folder`` holds no answer to."""
    kept = AnswerCache(folder / _KEPT)
    identity = {"backend": judge.name.backend, "model": judge.name.model}
    return replace(judge, backend=CachedBackend(judge.backend, kept, identity, own=True))


def _tally(settings: SimulationConfig, sample: Summary | None) -> Tally:
    """Return the counters of the judge, for whom the sample leaves what it did not use of the budget."""
    tally = Tally(total=0, budget=settings.budget)
    if sample is not None:
        tally.earlier_tokens, tally.earlier_cost = sample.tally.tokens, sample.tally.total_cost
        tally.unpriced_calls = sample.tally.unpriced_calls
    tally.check_budget()
    return tally


def _add_sample(found: Audit, environment: Environment, sample: Summary, seed: int, heard: Listener) -> None:
    with RunReader(run_to_read(str(sample.path), heard.warn)) as reader:
        complete = (each for each in reader.trajectories() if each["status"] == "complete")
        add_conversations(found, environment, complete, seed)


async def _ask(found: Audit, judge: RoleModel, concurrency: int, heard: Listener) -> None:
    """Ask the judge until everything is answered, the budget is used up or a signal came."""

    def stop() -> None:
        found.tally.stop = found.tally.stop or "signal"

    with heard.progress() as advance:

        def told(done: int) -> None:
            advance("Judging", done / max(1, len(found.questions)))

        asking = asyncio.ensure_future(judge_all(found, judge, concurrency=concurrency, told=told))
        with stopping(asking, found.tally, stop, IN_TIME, heard):
            try:
                await ended(asking, found.tally)
            finally:
                await judge.backend.aclose()


def _to_go_on(folder: Path) -> str:
    return f"To go on: the same command with --resume --out {folder}"


@contextmanager
def _resumable(folder: Path) -> Iterator[None]:
    """Turn a stop during the block that nothing else hears into an error that says how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        raise StoppedError(f"Stopped. {_to_go_on(folder)}") from None
