"""Settings of the trackers, under ``trackers: {NAME: {...}}``."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from influence_cli.api import Frozen


class TensorBoardOptions(Frozen):
    """Options of the tracker ``tensorboard``."""

    folder: str | None = Field(default=None, description="Where event files go; none: into the run's folder.")


class WandbOptions(Frozen):
    """Options of the tracker ``wandb``."""

    project: str = Field(default="influence", description="The project that the run belongs to.")
    entity: str | None = Field(default=None, description="User or team; none: the account's own.")
    mode: Literal["offline", "online"] = Field(
        default="offline", description="online sends while the run goes on; offline files are sent by `wandb sync`."
    )
    group: str | None = Field(default=None, description="Groups runs that belong together.")
    tags: tuple[str, ...] = Field(default=(), description="Tags of the run.")


class MlflowOptions(Frozen):
    """Options of the tracker ``mlflow``."""

    uri: str | None = Field(
        default=None, description="Address or file of the tracking store; none: a file store in the run's folder."
    )
    experiment: str = Field(default="influence", description="The experiment that the run belongs to.")
