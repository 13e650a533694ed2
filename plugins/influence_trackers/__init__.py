"""Trackers of training runs: TensorBoard, Weights & Biases, MLflow; each imported when a run asks for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from influence_cli.api import Component, hookimpl

if TYPE_CHECKING:
    from influence_cli.api import Tracker


def _tensorboard() -> Callable[..., Tracker]:
    from influence_trackers.tensorboard import TensorBoardTracker

    return TensorBoardTracker


def _wandb() -> Callable[..., Tracker]:
    from influence_trackers.weights_and_biases import WandbTracker

    return WandbTracker


def _mlflow() -> Callable[..., Tracker]:
    from influence_trackers.mlflow_store import MlflowTracker

    return MlflowTracker


@hookimpl
def influence_trackers() -> Iterable[Component[Tracker]]:
    """Return the three trackers."""
    from influence_trackers.options import MlflowOptions, TensorBoardOptions, WandbOptions

    return [
        Component(
            name="tensorboard",
            summary="Event files in the run's folder, for `tensorboard --logdir`.",
            load=_tensorboard,
            options=TensorBoardOptions,
            requires=("tensorboard",),
            extra="influence-cli[tensorboard]",
        ),
        Component(
            name="wandb",
            summary="Weights & Biases; offline by default.",
            load=_wandb,
            options=WandbOptions,
            requires=("wandb",),
            extra="influence-cli[wandb]",
        ),
        Component(
            name="mlflow",
            summary="MLflow: a file store in the run's folder, or a server.",
            load=_mlflow,
            options=MlflowOptions,
            requires=("mlflow",),
            extra="influence-cli[mlflow]",
        ),
    ]
