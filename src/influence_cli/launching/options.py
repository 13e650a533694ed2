"""Options of the launcher of this machine."""

from __future__ import annotations

from pydantic import Field

from influence_cli.schemas.frozen import Frozen


class LocalOptions(Frozen):
    """How processes are started and ended on this machine."""

    at_once: int | None = Field(default=None, ge=1, description="Processes at once; None: as many as the GPUs allow.")
    gpus: tuple[str, ...] | None = Field(
        default=None, description="GPUs to hand out, by number or UUID; None: CUDA_VISIBLE_DEVICES, or all there are."
    )
    grace: float = Field(default=45.0, ge=0.0, description="Seconds from being told to stop to being killed.")
