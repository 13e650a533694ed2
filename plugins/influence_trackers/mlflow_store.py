"""MLflow: the same run is gone on with after it was broken off."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
from mlflow import MlflowClient

from influence_cli.api import Example, TrackedRun
from influence_trackers.options import MlflowOptions

_ALLOW_FILES = "MLFLOW_ALLOW_FILE_STORE"
_LONGEST = 500
_STATES = {"done": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}


class MlflowTracker:
    """One MLflow run for each training run, remembered in the run's folder; the step is the iteration."""

    def __init__(self, options: MlflowOptions) -> None:
        self._options = options
        self._client: Any = None
        self._run = ""

    def start(self, run: TrackedRun) -> None:
        """Begin, or go on with, the MLflow run."""
        os.environ.setdefault(_ALLOW_FILES, "true")  # files are what a run's folder holds; MLflow asks for consent
        store = Path(run.folder) / "store"
        self._client = MlflowClient(tracking_uri=self._options.uri or store.resolve().as_uri())
        remembered = Path(run.folder) / "run.json"
        if remembered.is_file():
            self._run = orjson.loads(remembered.read_bytes())["run"]
            self._client.update_run(self._run, status="RUNNING")
            return
        experiment = self._client.get_experiment_by_name(self._options.experiment)
        number = experiment.experiment_id if experiment else self._client.create_experiment(self._options.experiment)
        self._run = self._client.create_run(number, run_name=run.name).info.run_id
        remembered.write_bytes(orjson.dumps({"run": self._run}))
        for name, value in _leaves(run.config):
            self._client.log_param(self._run, name, str(value)[:_LONGEST])
        self._client.log_text(self._run, orjson.dumps(run.config, option=orjson.OPT_INDENT_2).decode(), "config.json")

    def log(self, iteration: int, metrics: Mapping[str, float], examples: Sequence[Example]) -> None:
        """Send the figures, and the conversations as text artifacts."""
        for name, value in metrics.items():
            self._client.log_metric(self._run, name, value, step=iteration)
        for number, example in enumerate(examples):
            text = f"{example.title}, reward {example.reward:.2f}\n\n{example.text}\n"
            self._client.log_text(self._run, text, f"examples/{iteration}/{number}.txt")

    def close(self, state: str) -> None:
        """End the MLflow run in the state of ours."""
        if self._client is not None and self._run:
            self._client.set_terminated(self._run, status=_STATES.get(state, "FAILED"))


def _leaves(config: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted name and value of every setting that is one value, or an empty collection."""
    for key, value in config.items():
        name = f"{above}{key}".replace(":", "_")
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{name}.")
        else:
            yield name, value
