"""Weights & Biases: the same run is gone on with after it was broken off."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import wandb

from influence_cli.api import Example, TrackedRun
from influence_trackers.options import WandbOptions


class WandbTracker:
    """One W&B run for each training run, by an identifier that its name determines; the step is the iteration."""

    def __init__(self, options: WandbOptions) -> None:
        self._options = options
        self._run: Any = None
        self._rows: list[tuple[int, str, float, str]] = []

    def start(self, run: TrackedRun) -> None:
        """Begin, or go on with, the W&B run; its files lie in the run's folder."""
        self._run = wandb.init(
            project=self._options.project,
            entity=self._options.entity,
            mode=self._options.mode,
            group=self._options.group,
            tags=self._options.tags or None,
            dir=run.folder,
            id=hashlib.sha256(run.name.encode()).hexdigest()[:16],
            name=run.name,
            config=run.config,
            resume="allow" if self._options.mode == "online" else None,
            settings=wandb.Settings(silent=True, console="off"),
        )
        self._run.define_metric("*", step_metric="iteration")

    def log(self, iteration: int, metrics: Mapping[str, float], examples: Sequence[Example]) -> None:
        """Send the figures, and the conversations as a table."""
        self._rows += [(iteration, example.title, example.reward, example.text) for example in examples]
        table = wandb.Table(columns=["iteration", "conversation", "reward", "text"], data=[list(r) for r in self._rows])
        self._run.log({"iteration": iteration, **metrics, "examples": table})

    def close(self, state: str) -> None:
        """End the W&B run: as failed unless it is done or was stopped."""
        if self._run is not None:
            self._run.summary["state"] = state
            self._run.finish(exit_code=1 if state == "failed" else 0)
