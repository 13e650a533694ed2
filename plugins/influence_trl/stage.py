"""One training stage as the process that trains is told it, and what stands in its folder.

Concept: the stage is a file; whoever trains reads it, writes progress, and at the end an outcome or a failure. Invariant:
what is half-written is never read: files are written beside their place, synced and renamed, and a checkpoint counts
only once its mark stands in it.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Literal

from pydantic import Field, JsonValue, ValidationError

from influence_cli.api import Frozen, TrainingJob, TrainingOutcome, write_whole

WEIGHTS = "adapter_model.safetensors"
MARK = "whole.json"
BEFORE, AFTER = 0.05, 0.95
"""Shares of a stage, for the progress shown: what comes before training proper, and what has then been done."""

FailureReason = Literal["memory", "disk", "not-a-number", "mistake", "stopped", "internal"]


class Failure(Frozen):
    """Why a stage came to nothing."""

    reason: FailureReason = Field(description="What kind of failure.")
    message: str = Field(description="One line.")
    hint: str | None = Field(default=None, description="What mends it.")


class Stage(Frozen):
    """What the training process is asked to do."""

    algorithm: str = Field(description="Name of the algorithm.")
    options: dict[str, JsonValue] = Field(description="Its validated options.")
    job: TrainingJob = Field(description="As the loop gave it.")
    model: str = Field(description="Folder of the base model.")
    micro_batch: int = Field(ge=1, description="Most rows computed at once by a process.")
    fingerprint: str = Field(description="Of all that determines the weights that come of it.")


class Finished(Frozen):
    """An outcome, and of what."""

    fingerprint: str = Field(description="Of the stage that it came of.")
    outcome: TrainingOutcome = Field(description="What came of it.")


class StageFolder:
    """The files of a stage."""

    def __init__(self, folder: str | Path) -> None:
        self.path = Path(folder)
        self.stage = self.path / "stage.json"
        self.progress = self.path / "progress.jsonl"
        self.finished = self.path / "outcome.json"
        self.failure = self.path / "failure.json"
        self.log = self.path / "training.log"
        self.adapter = self.path / "adapter"
        self.checkpoints = self.path / "checkpoints"

    def outcome(self, fingerprint: str) -> TrainingOutcome | None:
        """Return what came of the stage, if it is done and its adapter stands unchanged; else None."""
        try:
            found = Finished.model_validate_json(self.finished.read_bytes())
            if found.fingerprint == fingerprint and digest_of(self.adapter) == found.outcome.digest:
                return found.outcome
        except (OSError, ValidationError):
            pass
        return None

    def read_failure(self) -> Failure | None:
        """Return the failure that the training process told, if any."""
        try:
            return Failure.model_validate_json(self.failure.read_bytes())
        except (OSError, ValidationError):
            return None

    def prepare(self, stage: Stage) -> None:
        """Write the stage down, and remove what is left of any other stage."""
        self.path.mkdir(parents=True, exist_ok=True)
        if self._fingerprint_before() != stage.fingerprint:
            shutil.rmtree(self.checkpoints, ignore_errors=True)
        for left in self.path.glob(".adapter-*"):
            shutil.rmtree(left, ignore_errors=True)
        for path in (self.finished, self.failure, self.progress):
            path.unlink(missing_ok=True)
        write_whole(self.stage, stage.model_dump_json(indent=1).encode())

    def whole_checkpoint(self) -> Path | None:
        """Return the newest complete checkpoint; those that are not complete are removed."""
        found: list[tuple[int, Path]] = []
        for path in self.checkpoints.glob("checkpoint-*"):
            number = path.name.rpartition("-")[2]
            if number.isdigit() and (path / MARK).is_file():
                found.append((int(number), path))
            else:
                shutil.rmtree(path, ignore_errors=True)
        return max(found)[1] if found else None

    def _fingerprint_before(self) -> str | None:
        try:
            return Stage.model_validate_json(self.stage.read_bytes()).fingerprint
        except (OSError, ValidationError):
            return None


def fingerprint_of(algorithm: str, options: Frozen, job: TrainingJob) -> str:
    """Return a hash of all that determines the weights: options, base, rows, seed, and the weights to start from."""
    start = None if job.adapter is None else digest_of(Path(job.adapter))
    told = {
        "algorithm": algorithm,
        "options": options.model_dump(mode="json"),
        "base": job.base,
        "start": start,
        "seed": job.seed,
        "iteration": job.iteration,
    }
    digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
    with Path(job.rows).open("rb") as file:
        digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def digest_of(adapter: Path) -> str:
    """Return the SHA-256 of an adapter's weights file; OSError if it cannot be read."""
    with (adapter / WEIGHTS).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
