"""The loop: have conversations, select, train; over and over, measured on held-out states, resumable at every stage.

    iteration k:   prove -> evaluate -> simulate -> (score) -> select -> train -> track        last: prove, evaluate, track

Invariant: what came of a stage is stored before the next one begins, and a stage that is stored is never repeated; what
is drawn derives from the run's seed and the iteration, so that a run broken off anywhere ends as the unbroken one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from shutil import rmtree
from typing import Any

from influence_cli.backends.names import ModelName
from influence_cli.environments.environment import Environment
from influence_cli.errors import InfluenceError
from influence_cli.schemas.configs import TrainConfig
from influence_cli.schemas.training import RowsWanted, TrainingJob, TrainingOutcome, TrainingPair, TrainingRow
from influence_cli.scoring.computed import NamedScorer
from influence_cli.seeding import derive_seed
from influence_cli.store.reader import RunReader
from influence_cli.store.run_directory import RunDirectory
from influence_cli.store.writer import RunWriter
from influence_cli.training.adapters import ADAPTERS, check_adapter, check_outcome, place_adapter
from influence_cli.training.conversing import Conductor, Conversing, iteration_seed
from influence_cli.training.protocol import Algorithm
from influence_cli.training.rewards import candidates, is_mean_of_turns, score_name
from influence_cli.training.rows import Asked, Rated, episode_of, pairs_of, rows_of, write_rows
from influence_cli.training.selection import Candidate, Selection, count_vetoed, select
from influence_cli.training.source import Source, without_heldout
from influence_cli.training.tracking import Tracking

ROWS = "rows.jsonl"
FOLDER = "training"


@dataclass
class Training:
    """Everything that a training run needs, resolved.

    ``agent`` is who speaks before anything is learnt; ``scorer`` computes the reward where no model is asked for it;
    ``source`` finds what the first iteration learns from in place of conversations of its own.
    """

    config: TrainConfig
    environments: Sequence[Environment]
    algorithm: Algorithm
    directory: RunDirectory
    agent: ModelName
    tracking: Tracking = field(default_factory=Tracking)
    scorer: NamedScorer | None = None
    source: Callable[[], Source] | None = None


class Loop:
    """One sitting of a training run: :meth:`run` once."""

    def __init__(self, training: Training, writer: RunWriter, conductor: Conductor) -> None:
        self._training = training
        self._config = training.config
        self._writer = writer
        self._conductor = conductor
        self._done = writer.finished_stages()
        self._path = training.directory.path.resolve()
        self._copied: Path | None = None

    def run(self) -> None:
        """Do all that is not done yet.

        Raises Stopped where what asks models was stopped, and InfluenceError for whatever the user can mend; the run can
        be taken up again after either.
        """
        last = self._config.iterations
        for iteration in range(last + 1):
            self._writer.set_agent(iteration, str(self.agent(iteration)))
            self._converse(iteration, last)
            if iteration < last:
                self._stage(iteration, "select", self._select)
                self._stage(iteration, "train", self._train)
                self._tidy()
            self._stage(iteration, "track", self._track)

    def agent(self, iteration: int) -> ModelName:
        """Return who speaks as the agent in an iteration: the base with its adapter, or a model that a provider made."""
        first = self._training.agent
        outcome = self._outcome(iteration - 1)
        if outcome is None:
            return first
        if self._is_served(outcome):
            return ModelName(first.backend, outcome.adapter)
        return ModelName(first.backend, first.model, str(self._adapter(iteration)))

    # -- conversations ------------------------------------------------------------------------------------------------

    def _converse(self, iteration: int, last: int) -> None:
        """Have the conversations of an iteration and what reads them, with the models loaded once and then released."""
        names = ["simulate"] if iteration < last and not self._is_given(iteration) else []
        if iteration in (0, last) or iteration % self._config.evaluation.every == 0:
            names.insert(0, "evaluate")
        if names and score_name(self._config.selection) is not None:
            names.append("score")
        if iteration > 0 and names and self._adapter(iteration).is_dir():
            names.insert(0, "prove")
        missing = [name for name in names if (iteration, name) not in self._done]
        if not missing:
            return
        outcome = self._outcome(iteration - 1)
        if outcome is not None and not self._is_served(outcome):
            check_adapter(self._adapter(iteration), outcome.digest)
        conversing = Conversing(
            self._training.environments,
            self._config,
            self._training.directory,
            self._writer,
            self._training.scorer,
        )
        works = {name: conversing.work(name, iteration, self._proof(iteration)) for name in missing}
        conversing.run(self._conductor, self.agent(iteration), iteration, works, self._kept(iteration))

    def _kept(self, iteration: int) -> Callable[[str, Mapping[str, Any]], None]:
        def keep(name: str, data: Mapping[str, Any]) -> None:
            self._writer.finish_stage(iteration, name, data)
            self._done[iteration, name] = dict(data)

        return keep

    def _proof(self, iteration: int) -> tuple[Path, str | None, str]:
        """Return what a proof needs: rows learnt from, and the adapters before and now."""
        before = self.agent(iteration - 1).adapter if iteration else None
        return self._folder(iteration - 1) / ROWS, before, str(self._adapter(iteration))

    # -- stages without a model of ours -------------------------------------------------------------------------------

    def _stage(self, iteration: int, name: str, work: Callable[[int], dict[str, Any]]) -> None:
        if (iteration, name) in self._done:
            return
        self._writer.begin_stage(iteration, name)
        self._kept(iteration)(name, work(iteration))

    def _select(self, iteration: int) -> dict[str, Any]:
        config = self._config.selection
        wants = self._training.algorithm.wants
        source = self._source(iteration)
        origin = {} if source is None else source.document(config)
        with RunReader(self._training.directory if source is None else source.directory) as run:
            found = candidates(run, iteration if source is None else source.iteration, "train", config)
            if source is not None:
                found, origin["heldout_left_out"] = without_heldout(found, self._training.environments)
            if not found.rated and found.unrated:
                raise _no_rewards(found.unrated, score_name(config))
            seed = iteration_seed(self._config, iteration)
            if wants == "all":
                selection = Selection(vetoed=count_vetoed(found.rated, config))
                chosen: dict[int, tuple[Candidate, bool | None]] = {e.episode_id: (e, None) for e in found.rated}
            else:
                selection = select(found.rated, config, wants=wants, seed=seed)
                chosen = {each.episode_id: (each, True) for each in selection.best}
                if wants != "best":
                    chosen |= {each.episode_id: (each, False) for each in selection.worst}
            rows = self._rows(run, iteration, chosen, source)
        lines = arrange(rows, selection, wants)
        path = self._folder(iteration) / ROWS
        count = write_rows(path, lines)
        if count == 0:
            raise InfluenceError("No pair of conversations answers one prompt.", hint="Use --set layout=conversation.")
        return {
            **origin,
            "candidates": len(found.rated),
            "unrated": found.unrated,
            "vetoed": selection.vetoed,
            "without_veto": self._without_veto(found.rated),
            "groups": len(selection.groups),
            "empty": dict(selection.empty),
            "best": len(selection.best),
            "worst": len(selection.worst) if wants != "best" else 0,
            "rows": count,
            "digest": sha256(path.read_bytes()).hexdigest(),
        }

    def _without_veto(self, rated: Sequence[Candidate]) -> int:
        """Return how many conversations could not be vetoed because no answer of the veto model is usable."""
        if not self._config.veto or self._config.selection.veto_level is None:
            return 0
        asking = {each.name for each in self._training.environments if each.spec.roles.veto is not None}
        return sum(each.veto is None and each.environment in asking for each in rated)

    def _rows(
        self,
        run: RunReader,
        iteration: int,
        chosen: Mapping[int, tuple[Candidate, bool | None]],
        source: Source | None,
    ) -> dict[int, list[TrainingRow]]:
        """Return the rows of every chosen conversation, by its number in the store."""
        environments = {each.name: each for each in self._training.environments}
        seed = iteration_seed(self._config, iteration)

        def asked(trajectory: Mapping[str, Any]) -> Asked:
            if source is not None:
                return source.asked(trajectory)
            return episode_of(trajectory, environments[trajectory["environment"]], seed)

        rows: dict[int, list[TrainingRow]] = {}
        wanted = iteration if source is None else source.iteration
        for number, trajectory in run.numbered(finished=True, iteration=wanted, split="train"):
            if number in chosen:
                candidate, desirable = chosen[number]
                rated = Rated(number, trajectory, candidate.reward, desirable)
                layout, plain = self._config.layout, is_mean_of_turns(self._config.selection)
                rows[number] = rows_of(rated, asked(trajectory), layout=layout, reward_of_turns=plain)
        return rows

    def _train(self, iteration: int) -> dict[str, Any]:
        before = self._outcome(iteration - 1)
        folder = self._folder(iteration)
        job = TrainingJob(
            iteration=iteration,
            base=self._training.agent.base,
            adapter=before.adapter if before is not None and self._is_served(before) else self.agent(iteration).adapter,
            rows=str(folder / ROWS),
            folder=str(folder / "job"),
            seed=derive_seed("train", iteration_seed(self._config, iteration)),
        )
        Path(job.folder).mkdir(parents=True, exist_ok=True)
        started = time.monotonic()
        outcome = self._training.algorithm.train(job, self._conductor.told)
        check_outcome(outcome, before.digest if before else None)
        made = Path(outcome.adapter)
        if made.is_dir():
            place_adapter(made, self._adapter(iteration + 1))
            if made.resolve().is_relative_to(Path(job.folder).resolve()):
                self._copied = made
            outcome = outcome.model_copy(update={"adapter": f"{ADAPTERS}/{iteration + 1}"})
        return {**outcome.model_dump(mode="json"), "wall_seconds": round(time.monotonic() - started, 3)}

    def _tidy(self) -> None:
        """Remove what training wrote and the run keeps elsewhere; not before the stage is stored, lest it be repeated."""
        if self._copied is not None:
            rmtree(self._copied, ignore_errors=True)
            self._copied = None

    def _track(self, iteration: int) -> dict[str, Any]:
        stages = {name: data for (number, name), data in self._done.items() if number == iteration}
        return self._training.tracking.log(self._training.directory, iteration, stages, self._config)

    # -- conversations that are there already -------------------------------------------------------------------------

    def _is_given(self, iteration: int) -> bool:
        return iteration == 0 and self._training.source is not None

    def _source(self, iteration: int) -> Source | None:
        return self._training.source() if self._is_given(iteration) and self._training.source is not None else None

    # -- where things are ---------------------------------------------------------------------------------------------

    def _outcome(self, iteration: int) -> TrainingOutcome | None:
        data = self._done.get((iteration, "train"))
        if data is None:
            return None
        return TrainingOutcome.model_validate({k: v for k, v in data.items() if k in TrainingOutcome.model_fields})

    def _is_served(self, outcome: TrainingOutcome) -> bool:
        """Return whether what was made is a model of a provider, and no folder of this run."""
        return not outcome.adapter.startswith(f"{ADAPTERS}/")

    def _adapter(self, iteration: int) -> Path:
        return self._path / ADAPTERS / str(iteration)

    def _folder(self, iteration: int) -> Path:
        return self._path / FOLDER / str(iteration)


def _no_rewards(count: int, score: str | None) -> InfluenceError:
    """Return what to say where no conversation has a reward: nothing usable was rated, or a score gives no value."""
    what = "a usable rating" if score is None else f"a usable score {score!r}"
    return InfluenceError(
        f"None of {count:,} conversations has {what} to learn from.",
        hint="See `influence runs show`; `influence plugins show` tells what a scorer computes.",
    )


def arrange(
    rows: Mapping[int, list[TrainingRow]], selection: Selection, wants: RowsWanted
) -> list[TrainingRow] | list[TrainingPair]:
    """Return the lines of the rows file in an order that depends on what the conversations are alone."""
    if wants != "pairs":
        flat = [row for found in rows.values() for row in found]
        return sorted(flat, key=lambda r: (r.environment, r.scenario, r.initial_state, r.sample, r.turn))
    pairs: list[TrainingPair] = []
    for group in selection.groups:
        best, worst = ([rows[each.episode_id] for each in side] for side in (group.best, group.worst))
        pairs += pairs_of(best, worst)
    return pairs
