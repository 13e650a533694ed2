"""How batch jobs are submitted and watched."""

from __future__ import annotations

from pydantic import Field

from influence_cli.api import Frozen


class SlurmOptions(Frozen):
    """Options of the launcher of SLURM clusters."""

    partition: str | None = Field(default=None, description="Partition; None: the cluster's default.")
    account: str | None = Field(default=None, description="Account to charge.")
    qos: str | None = Field(default=None, description="Quality of service.")
    constraint: str | None = Field(default=None, description="Features that a node must have.")
    gres: str = Field(default="gpu", description="How GPUs are called: gpu, or gpu:a100.")
    directives: tuple[str, ...] = Field(
        default=(), description="More options of sbatch, as they stand after #SBATCH: --exclusive."
    )
    setup: tuple[str, ...] = Field(
        default=(), description="Lines of shell before each command: module load cuda, source venv/bin/activate."
    )
    at_once: int | None = Field(default=None, ge=1, description="Jobs of an array at once; None: all.")
    warning: int = Field(
        default=120, ge=1, le=3600, description="Seconds before the time limit at which a job stops, to be requeued."
    )
    requeues: int = Field(default=100, ge=0, description="How often a job is requeued at most.")
    poll: float = Field(default=10.0, gt=0.0, le=600.0, description="Seconds between looks at the queue.")
    grace: float = Field(default=60.0, ge=0.0, description="Seconds from being told to stop to being killed.")
