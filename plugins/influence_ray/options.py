"""Which Ray cluster is used, and how."""

from __future__ import annotations

from pydantic import Field

from influence_cli.api import Frozen


class RayOptions(Frozen):
    """Options of the launcher of Ray clusters."""

    address: str | None = Field(
        default=None, description="Of a cluster: auto, or HOST:PORT; None: RAY_ADDRESS, or a cluster on this machine."
    )
    cpus: int | None = Field(default=None, ge=1, description="Of a cluster begun on this machine; None: all.")
    gpus: int | None = Field(default=None, ge=0, description="Of a cluster begun on this machine; None: all.")
    autoscales: bool = Field(default=False, description="Whether the cluster may grow, so that nothing is too much.")
    strategy: str = Field(default="DEFAULT", pattern="^(DEFAULT|SPREAD)$", description="DEFAULT packs, SPREAD spreads.")
    grace: float = Field(default=45.0, ge=0.0, description="Seconds from being told to stop to being killed.")
