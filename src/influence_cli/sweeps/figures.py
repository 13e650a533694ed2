"""What a sweep adds up to: the object ``influence.sweep.show/1``.

Invariant: failed and pruned trials are shown and counted, and enter no ranking and no importance; the best of several
trials is called that, and is no estimate of what its settings give when they are run again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from influence_cli.errors import InfluenceError
from influence_cli.schemas.spaces import written
from influence_cli.schemas.sweeps import Objective, Study, TrialRecord
from influence_cli.settings import as_yaml
from influence_cli.store.run_directory import holder
from influence_cli.sweeps.commands import pasted
from influence_cli.sweeps.directory import SweepDirectory
from influence_cli.sweeps.objectives import KINDS
from influence_cli.sweeps.protocol import Importance
from influence_cli.sweeps.records import TrialStore

SCHEMA = "influence.sweep.show/1"
FEW = 20
"""Under so many trials an importance is a hint."""


def sweep_document(sweep: SweepDirectory, importance: Importance, method: str) -> dict[str, Any]:
    """Return all figures of a sweep, also while it runs; ``importance`` is measured by what is called ``method``."""
    with TrialStore(sweep.path, write=False) as store:
        trials = store.trials()
    study, config = sweep.study(), sweep.config
    done = [trial for trial in trials if trial.state == "done"]
    front = pareto(done, config.objectives)
    states = [trial.state for trial in trials]
    costs = [trial.cost for trial in trials]
    return {
        "schema": SCHEMA,
        "sweep": sweep.path.resolve().name,
        "path": str(sweep.path),
        "state": sweep_state(sweep, trials),
        "created": sweep.manifest.created,
        "command": config.command,
        "searcher": config.searcher.name,
        "seeds": config.seeds,
        "space": [
            {"name": name, "setting": sweep.manifest.keys[name], "space": written(dimension)}
            for name, dimension in study.space.items()
        ],
        "objectives": [
            {"name": each.name, "title": KINDS[each.name].title, "direction": each.direction}
            for each in config.objectives
        ],
        "counts": {
            "wanted": config.trials,
            **{state: states.count(state) for state in ("done", "pruned", "failed", "running")},
        },
        "trials": [_trial(sweep, trial, is_pareto=trial.number in front) for trial in trials],
        "best": best(done, config.objectives[0]),
        "pareto": front,
        "importance": {
            "method": method,
            "trials": len(done),
            "few": len(done) < FEW,
            "by_objective": {
                each.name: _shares(importance, study, done, index) for index, each in enumerate(config.objectives)
            },
        },
        "tokens": sum(trial.tokens for trial in trials),
        "cost": None if None in costs else sum(cost or 0.0 for cost in costs),
    }


def sweep_state(sweep: SweepDirectory, trials: Sequence[TrialRecord]) -> str:
    """Return ``running`` while a process has the sweep, else ``done`` or ``stopped``."""
    if holder(sweep.path) is not None:
        return "running"
    ended = sum(trial.state != "running" for trial in trials)
    wanted = sweep.config.trials
    return "done" if trials and ended == len(trials) and (wanted is None or ended >= wanted) else "stopped"


def _trial(sweep: SweepDirectory, trial: TrialRecord, *, is_pareto: bool) -> dict[str, Any]:
    return {
        "number": trial.number,
        "state": trial.state,
        "reason": trial.reason or None,
        "parameters": trial.parameters,
        "values": [reading.model_dump(mode="json") for reading in trial.readings],
        "steps": trial.steps,
        "pareto": is_pareto,
        "runs": [str(path) for path in sweep.runs(trial.number)],
        "again": pasted(sweep, trial.parameters),
        "seconds": None if trial.finished is None else round(trial.finished - trial.started, 3),
        "tokens": trial.tokens,
        "cost": trial.cost,
    }


def _shares(importance: Importance, study: Study, done: Sequence[TrialRecord], index: int) -> list[dict[str, Any]]:
    """Return the parameters with their shares, the largest first; none where no share can be told."""
    shares = importance.measure(study, done, index) if done else {}
    return [{"parameter": name, "share": share} for name, share in sorted(shares.items(), key=lambda item: -item[1])]


def best(done: Sequence[TrialRecord], objective: Objective) -> int | None:
    """Return the number of the trial that is best by the first objective, the earliest of equals."""
    return max(done, key=lambda trial: objective.sign * trial.readings[0].value).number if done else None


def pareto(done: Sequence[TrialRecord], objectives: Sequence[Objective]) -> list[int]:
    """Return the numbers of the trials that no other one beats: as good in every objective, and better in one."""

    def worth(trial: TrialRecord) -> tuple[float, ...]:
        return tuple(each.sign * r.value for each, r in zip(objectives, trial.readings, strict=True))

    points = {trial.number: worth(trial) for trial in done}
    return [
        number
        for number, mine in points.items()
        if not any(other != mine and all(a >= b for a, b in zip(other, mine, strict=True)) for other in points.values())
    ]


def space_text(space: Any) -> str:
    """Return the space of a document as it is written."""
    return space if isinstance(space, str) else as_yaml(space)


def best_document(document: dict[str, Any], number: int | None = None) -> dict[str, Any]:
    """Return the best trial of a sweep's ``document``, or another: the object ``influence.sweep.best/1``.

    InfluenceError if no trial is done, or there is none of that number.
    """
    wanted = document["best"] if number is None else number
    if wanted is None:
        raise InfluenceError(f"No trial of {document['path']} is done.", hint="See `influence sweep show`.")
    own = {name: document[name] for name in ("sweep", "path", "objectives", "pareto")}
    return {"schema": "influence.sweep.best/1", **own, "trial": trial_of(document, wanted)}


def trial_of(document: dict[str, Any], number: int) -> dict[str, Any]:
    """Return a trial of a document; InfluenceError if it has none of that number."""
    for trial in document["trials"]:
        if trial["number"] == number:
            found: dict[str, Any] = trial
            return found
    raise InfluenceError(f"{document['path']} has no trial {number}.")
