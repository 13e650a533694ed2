"""Sweeps whose runs are written into real stores by hand, so that a trial takes no time."""

import asyncio
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from influence_cli.launching.protocol import JobStatus
from influence_cli.schemas.configs import RunManifest, SimulationConfig, TrainConfig
from influence_cli.schemas.records import CallRecord, EpisodeKey, EpisodeRecord, JudgementRecord, TrajectoryEnd
from influence_cli.schemas.sweeps import SweepConfig, SweepManifest, TrialRecord
from influence_cli.settings import resolve_settings
from influence_cli.store.run_directory import MANIFEST, create_run, locked, open_run
from influence_cli.sweeps.directory import SweepDirectory, create_sweep
from influence_cli.sweeps.keys import setting_key
from influence_cli.sweeps.objectives import settle_objective
from influence_cli.sweeps.records import TrialStore
from influence_cli.sweeps.searchers import Grid, NoOptions, Random
from influence_cli.sweeps.sweep import Sweep

POLL = 0.01
CHOICES = tuple(str(n) for n in range(1, 11))


def judgement(role, value, choices=CHOICES):
    shares = tuple(1.0 if index == 0 else 0.0 for index in range(len(choices)))
    return JudgementRecord(
        turn=1, role=role, state="talking", choices=choices, probabilities=shares, mass=1.0, method="exact", expected=value
    )  # fmt: skip


def add_iteration(writer, iteration, reward, *, veto=0.1, tokens=10, split="heldout", gap=0.0):
    """Four held-out conversations of one turn: two scenarios, both kinds of user."""
    for number in range(4):
        population = ("gameable", "resilient")[number % 2]
        key = EpisodeKey(
            iteration=iteration, environment="tiny", scenario=f"s{number // 2}", initial_state=f"i{number}"
        )
        record = EpisodeRecord(key=key, population=population, split=split, seed=number)
        episode = writer.open_episode(record, [])
        call = CallRecord(
            turn=1, role="agent", model="scripted:demo", prompt_tokens=tokens, completion_tokens=0, latency=0.1
        )
        writer.add_call(episode, call)
        rating = reward + (gap / 2 if population == "gameable" else -gap / 2)
        writer.add_judgement(episode, None, judgement("preference", rating))
        writer.add_judgement(episode, None, judgement("veto", veto, ("0", "1")))
        end = TrajectoryEnd(
            status="complete", reason="turn_limit", state="over", turns=1, mean_rating=rating, final_rating=rating, mean_veto=veto
        )  # fmt: skip
        writer.finish(episode, end)


def begin_trial(directory, **known):
    """Store a first trial that has begun, and what else is ``known`` of it, as a kill leaves it."""
    with TrialStore(directory.path, write=True) as store:
        store.save(TrialRecord(number=0, parameters={"strength": 0.1}, started=1.0, **known))


def made_run(path, config):
    """The run in ``path``, made if it is not there."""
    if (path / MANIFEST).is_file():
        return open_run(path)
    command = "train" if isinstance(config, TrainConfig) else "simulate"
    return create_run(path, RunManifest(run_id="", command=command, created="2026-01-01T00:00:00+00:00", config=config))


@dataclass
class Toy:
    """What a run of a trial does: rewards from iteration 0 on; it stops with ``code`` after ``until`` of them."""

    rewards: tuple = (5.0, 5.0)
    veto: float = 0.1
    tokens: int = 10
    gap: float = 0.0
    code: int = 0
    until: int | None = None
    hold: bool = False
    said: str = ""


def strength(config):
    return config.algorithm.options["strength"]


def good(config):
    """A run that does the better, the larger its strength."""
    return Toy(rewards=(5.0, 5.0 + strength(config)), gap=strength(config))


def values(outcome):
    return [trial.readings[0].value for trial in outcome.trials if trial.readings]


class GivesUp(Random):
    """A searcher that gives up whatever is below 5.5 after iteration 1."""

    def report(self, number, step, value):
        return step == 1 and value < 5.5


async def ended(cancelled):
    return 0


class ToyJob:
    def __init__(self, work, name="toy"):
        self.id = name
        self._cancelled = asyncio.Event()
        self._work = asyncio.create_task(work(self._cancelled))

    async def wait(self):
        return await asyncio.shield(self._work)

    async def status(self):
        await asyncio.sleep(0)  # one that has ended has had its turn then
        return JobStatus("ended", await self.wait()) if self._work.done() else JobStatus("waiting")

    async def cancel(self):
        self._cancelled.set()
        await self.wait()


@dataclass
class ToyLauncher:
    """Runs ``toy(parameters)`` for each command that is started, at most as fast as it is looked at."""

    toy: object
    commands: list = field(default_factory=list)
    active: int = 0
    most: int = 0
    survives: bool = False
    left: dict = field(default_factory=dict)
    """Jobs that an earlier process started, by name: what each still does."""

    async def start(self, task):
        command = list(task.command)
        self.commands.append(command)
        resumed = "--resume" in command
        path = Path(command[command.index("--resume" if resumed else "--out") + 1])
        if resumed:
            config = open_run(path).manifest.config
        else:
            model = TrainConfig if command[3] == "train" else SimulationConfig
            sets = [command[index + 1] for index, part in enumerate(command) if part == "--set"]
            config = resolve_settings(model, files=[Path(command[command.index("-c") + 1])], assignments=sets)
        return ToyJob(lambda cancelled: self._run(task, path, config, resumed, cancelled), f"job-{task.name}")

    async def attach(self, task, job_id):
        return ToyJob(self.left.pop(job_id, ended))

    async def _run(self, task, path, config, resumed, cancelled):
        self.active += 1
        self.most = max(self.most, self.active)
        try:
            toy = self.toy(config) if not resumed else Toy(rewards=self.toy(config).rewards)
            if toy.said:
                task.log.write_text(toy.said)
            with made_run(path, config).writer() as writer:
                writer.set_state("running")
                known = {iteration for iteration, name in writer.finished_stages() if name == "evaluate"}
                for iteration, reward in enumerate(toy.rewards[: toy.until]):
                    if iteration in known:
                        continue
                    add_iteration(writer, iteration, reward, veto=toy.veto, tokens=toy.tokens, gap=toy.gap)
                    writer.begin_stage(iteration, "evaluate")
                    writer.finish_stage(iteration, "evaluate", {})
                    await asyncio.sleep(3 * POLL)
                    if cancelled.is_set():
                        return 3
                if toy.hold:
                    await cancelled.wait()
                    return 3
                if toy.code == 0:
                    writer.set_state("done")
            return toy.code
        finally:
            self.active -= 1

    async def aclose(self):
        pass


@pytest.fixture
def make_sweep(tmp_path):
    """Make the folder of a sweep of the scripted learner."""

    def make(name="sweep", **changes) -> SweepDirectory:
        facts = {
            "search": {"strength": [0.1, 0.2, 0.3, 0.4]},
            "objectives": ["heldout_reward"],
            "searcher": {"name": "grid"},
        }
        config = SweepConfig.model_validate({**facts, **changes})
        model = TrainConfig if config.command == "train" else SimulationConfig
        settled = tuple(settle_objective(each, config.command) for each in config.objectives)
        config = config.model_copy(update={"objectives": settled})
        manifest = SweepManifest(
            sweep_id="influence-1",
            created="2026-01-01T00:00:00+00:00",
            config=config,
            keys={each: setting_key(each, model) for each in config.search},
        )
        base = {"environments": ["tiny"], "seed": 7}
        if config.command == "train":
            base |= {"algorithm": {"name": "scripted"}, "iterations": 1}
        return create_sweep(tmp_path / name, manifest, base)

    return make


@pytest.fixture
def have():
    """Have one sitting of a sweep with toy runs; return how it went, the launcher, and the records."""

    def run(directory, toy, *, searcher=None, after=None, retry_failed=False, **more):
        made = searcher or (Grid if directory.config.searcher.name == "grid" else Random)
        told = []
        with locked(directory.path), TrialStore(directory.path, write=True) as store:
            with closing(made(directory.study(), NoOptions())) as asked:
                launcher = ToyLauncher(toy, **more)

                async def sitting():
                    sweep = Sweep(directory, store, asked, launcher, told.append, poll=POLL, retry_failed=retry_failed)
                    meanwhile = asyncio.create_task(after(sweep, launcher)) if after is not None else None
                    outcome = await sweep.run()
                    if meanwhile is not None:
                        await meanwhile
                    return outcome

                outcome = asyncio.run(sitting())
            assert list(outcome.trials) == store.trials()
        return outcome, launcher, told

    return run
