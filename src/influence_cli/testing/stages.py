"""Real commands, as processes, and what they should leave behind in the folder that each has for itself.

Concept: a :class:`Stage` is one command (simulate, score, train, sweep) with what starts it and what takes it up again;
:func:`audit` reads everything that its folder holds, and :func:`stored_answers` what of a server's answers is kept there.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import orjson

from influence_cli.store.check import check_run
from influence_cli.store.merge import holds_nothing
from influence_cli.store.reader import RunReader
from influence_cli.store.run_directory import DATABASE, MANIFEST, open_run
from influence_cli.sweeps.directory import MANIFEST as SWEEP_MANIFEST
from influence_cli.sweeps.directory import open_sweep
from influence_cli.sweeps.records import DATABASE as SWEEP_DATABASE
from influence_cli.sweeps.records import TrialStore
from influence_cli.testing.serving import TestServer

StageName = Literal["simulate", "score", "train", "sweep"]
STAGES: tuple[StageName, ...] = ("simulate", "score", "train", "sweep")
Key = tuple[Any, ...]
_MODEL = "openai:test-model"
_SCRIPTED = "scripted:demo"
_RUBRICS = "veto-binary,veto-five-point"
"""Answers of one digit: each is told by its first token, so that a score is one request."""


@dataclass(frozen=True)
class Stage:
    """One command on one run or sweep: what starts it, what takes it up again, what it should leave behind.

    ``options`` are of the backend (``timeout=1``). Ratings of simulations are scripted and nothing is asked ahead of need:
    each call is one request then, and one that is kept, so that the server's answers can be counted against the run's calls.
    A sweep has three trials, each a small training run, two at once. ``learning`` are the seconds that its learner takes.
    """

    name: StageName
    folder: Path
    environment: Path
    server: TestServer
    n: int = 16
    options: Sequence[str] = ()
    prefix: Sequence[str] = ()
    learning: float = 0.2

    def begin(self) -> list[str]:
        """Return the command that starts it; a run that is to be scored is made first."""
        if self.name == "score":
            return self._command(
                "score", str(self.folder), "--with", _RUBRICS, "--judge", _MODEL, *self._where("--base-url")
            )
        asked = ["--env", str(self.environment), "-m", _MODEL, "--seed", "5", "--set", "speculate=false"]
        out = ["--out", str(self.folder)]
        if self.name == "sweep":
            return self._command("sweep", *asked, *self._searched(), *self._where("--option"), *out)
        asked += ["--preference", _SCRIPTED, *self._where("--base-url")]
        if self.name == "simulate":
            return self._command("simulate", *asked, "--n", str(self.n), *out)
        learnt = ["--agent", _SCRIPTED, "--top", "1/4", "--iterations", "2", "--samples", str(max(4, self.n // 4))]
        return self._command("train", *asked, *self._learner(), *learnt, *out)

    def resume(self) -> list[str]:
        """Return the command that takes it up again."""
        if self.name == "score":
            return self.begin()
        begun = (self.folder / (SWEEP_MANIFEST if self.name == "sweep" else MANIFEST)).is_file()
        return self._command(self.name, "--resume", str(self.folder)) if begun else self.begin()

    def prepare(self) -> None:
        """Make what the command needs beforehand."""
        if self.name == "score":
            made = ["--env", str(self.environment), "-m", _SCRIPTED, "--seed", "5", "--n", str(self.n)]
            subprocess.run(  # noqa: S603 - ourselves
                self._command("simulate", *made, "--out", str(self.folder)), check=True, capture_output=True
            )

    def has_stored(self) -> bool:
        """Return whether there is anything to read."""
        return (self.folder / (SWEEP_DATABASE if self.name == "sweep" else DATABASE)).is_file()

    def runs(self) -> list[tuple[Key, Path]]:
        """Return the folders of the runs that hold something, each with what its keys begin with."""
        if self.name != "sweep":
            return [((), self.folder)]
        directory = open_sweep(self.folder)
        with TrialStore(self.folder, write=False) as store:
            found = [(trial_key(each.parameters), directory.runs(each.number)[0]) for each in store.trials()]
        return [(key, path) for key, path in found if (path / MANIFEST).is_file() and _holds_something(path)]

    def _where(self, flag: str) -> Iterator[str]:
        """Yield the options of the backend; ``flag`` is how the command is told the server's address."""
        yield from (flag, f"base_url={self.server.base_url}" if flag == "--option" else self.server.base_url)
        for option in self.options:
            yield from ("--option", option)

    def _learner(self) -> list[str]:
        return ["--algo", "scripted", "--algo-option", f"seconds={self.learning:g}"]

    def _searched(self) -> list[str]:
        least = max(2, self.n // 12)
        space = ["--search", f"samples=[{least},{least + 1},{least + 2}]", "--parallel", "2"]
        roles = [part for role in ("agent", "preference") for part in ("--set", f"roles.{role}.model={_SCRIPTED}")]
        return [*roles, *self._learner(), *space, "--set", "selection.fraction=1/2", "--iterations", "1"]

    def _command(self, *arguments: str) -> list[str]:
        return [*self.prefix, sys.executable, "-m", "influence_cli", *arguments, "--quiet", "--json"]


def trial_key(parameters: Any) -> Key:
    """Return what names a trial, whatever its number is, and what the keys of its conversations begin with."""
    return (orjson.dumps(parameters, option=orjson.OPT_SORT_KEYS).decode(),)


def _holds_something(path: Path) -> bool:
    database = path / DATABASE
    return database.is_file() and not holds_nothing(database)


@dataclass
class Audit:
    """What a run or a sweep holds.

    ``keys`` of what is done, ``failed`` of what is recorded as failed, ``given_up`` of trials whose missing conversations
    are accounted for by that; how much is there twice, and what else is wrong.
    """

    keys: set[Key] = field(default_factory=set)
    failed: set[Key] = field(default_factory=set)
    given_up: set[Key] = field(default_factory=set)
    duplicated: int = 0
    problems: list[str] = field(default_factory=list)

    def accounts_for(self, key: Key) -> bool:
        """Return whether something is done, or recorded as failed, by itself or with its trial."""
        return key in self.keys or key in self.failed or key[:1] in self.given_up


_DONE = (
    "SELECT e.iteration, e.split, e.environment, e.scenario, e.initial_state, e.sample FROM episode e"
    " JOIN trajectory t ON t.episode_id = e.id WHERE t.status = '{}'"
)
_SCORED = (
    "SELECT e.scenario, e.initial_state, e.sample, s.turn, s.rubric FROM score s JOIN episode e ON e.id = s.episode_id"
    " WHERE s.failure {}"
)
_ANSWERED = "SELECT count(*) FROM call WHERE model = ? AND (error IS NULL OR error IN ('unusable', 'empty', 'refused'))"
"""Calls that the server answered."""
_TWICE = (
    "SELECT coalesce(sum(n - 1), 0) FROM (SELECT count(*) AS n FROM message WHERE source = 'model' AND dropped = 0"
    " AND tool_calls IS NULL GROUP BY episode_id, turn, speaker, state HAVING n > 1)",
    "SELECT coalesce(sum(n - 1), 0) FROM (SELECT count(*) AS n FROM judgement GROUP BY episode_id, turn, role"
    " HAVING n > 1)",
    "SELECT coalesce(sum(n - 1), 0) FROM (SELECT count(*) AS n FROM episode GROUP BY iteration, environment, scenario,"
    " initial_state, sample HAVING n > 1)",
    "SELECT coalesce(sum(n - 1), 0) FROM (SELECT count(*) AS n FROM score WHERE failure IS NULL GROUP BY episode_id, turn,"
    " rubric, judge, method HAVING n > 1)",
)


def audit(stage: Stage) -> Audit:
    """Return what ``stage`` left behind: of a sweep its trials and all that their runs hold."""
    found = Audit()
    query, states = (_SCORED, ("IS NULL", "NOT NULL")) if stage.name == "score" else (_DONE, ("complete", "failed"))
    for begin, path in stage.runs():
        directory = open_run(path)
        with RunReader(directory) as run:
            found.keys |= {(*begin, *row) for row in run.rows(query.format(states[0]))}
            found.failed |= {(*begin, *row) for row in run.rows(query.format(states[1]))}
            found.duplicated += sum(run.rows(twice)[0][0] for twice in _TWICE)
        found.problems += check_run(directory)
    if stage.name == "sweep":
        _add_trials(found, stage.folder)
    return found


def _add_trials(found: Audit, folder: Path) -> None:
    with TrialStore(folder, write=False) as store:
        trials = store.trials()
    keys = [trial_key(trial.parameters) for trial in trials]
    found.duplicated += len(keys) - len(set(keys))
    for key, trial in zip(keys, trials, strict=True):
        if trial.state == "done":
            found.keys.add(key)
        elif trial.state == "failed":
            found.given_up.add(key)
            found.failed.add(key)


def stored_answers(stage: Stage) -> int:
    """Return how many answers of the server the runs of ``stage`` hold."""
    total = 0
    for _, path in stage.runs():
        with RunReader(open_run(path)) as run:
            total += int(run.rows(_ANSWERED, (_MODEL,))[0][0])
    return total
