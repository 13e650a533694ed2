"""Adapters on disk: placed whole, known by the digest of their weights, and proved to be what was trained.

Invariant: ``adapters/<k>`` is the adapter that the conversations of iteration k are had with; it appears whole or not
at all, and its weights have the digest that training stated.
"""

from __future__ import annotations

import hashlib
import math
import os
import shutil
from pathlib import Path

from influence_cli.errors import InfluenceError
from influence_cli.schemas.training import TrainingOutcome
from influence_cli.store.connection import file_error

WEIGHTS = "adapter_model.safetensors"
ADAPTERS = "adapters"
_BLOCK = 2**20


def adapter_digest(folder: Path) -> str:
    """Return the SHA-256 of an adapter's weights: of ``adapter_model.safetensors``, else of all files, names included.

    InfluenceError where the folder holds nothing.
    """
    weights = folder / WEIGHTS
    digest = hashlib.sha256()
    files = [weights] if weights.is_file() else sorted(path for path in folder.rglob("*") if path.is_file())
    if not files:
        raise InfluenceError(f"{folder} holds no adapter.", hint="Go on with --resume: it is trained again.")
    for path in files:
        if path != weights:
            digest.update(f"{path.relative_to(folder).as_posix()}\0".encode())
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    return digest.hexdigest()


def place_adapter(source: Path, target: Path) -> None:
    """Copy an adapter to where the run keeps it, whole or not at all; InfluenceError where the disk does not suffice."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        for left in target.parent.glob(f".{target.name}.*"):
            shutil.rmtree(left)
        if target.is_dir():
            shutil.rmtree(target)
        shutil.copytree(source, temporary)
        temporary.replace(target)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise file_error(error, target) from None


def check_outcome(outcome: TrainingOutcome, before: str | None) -> None:
    """Raise InfluenceError unless training did something: other weights than ``before``, and replies made likelier.

    A digest stated for a folder must be that of the weights in it.
    """
    again = "The run stays at this stage; mend the settings of the algorithm and go on with --resume."
    folder = Path(outcome.adapter)
    if folder.is_dir():
        found = adapter_digest(folder)
        if found != outcome.digest:
            raise InfluenceError(
                f"The adapter in {folder} is not what was trained: its weights are {found[:12]}, not "
                f"{outcome.digest[:12]}.",
                hint=again,
            )
    if outcome.digest == before:
        raise InfluenceError(f"Training changed nothing: the weights are still {outcome.digest[:12]}.", hint=again)
    if folder.is_dir() and (outcome.steps == 0 or outcome.rows == 0):
        raise InfluenceError(
            f"Training changed nothing: {outcome.rows:,} rows, {outcome.steps:,} steps "
            f"({outcome.dropped:,} rows were dropped).",
            hint=again,
        )
    if outcome.moved is not None and (outcome.moved == 0.0 or not math.isfinite(outcome.moved)):
        raise InfluenceError(
            f"Training moved nothing: the log-probability of its own replies changed by {outcome.moved:g}.", hint=again
        )


def check_adapter(folder: Path, digest: str) -> None:
    """Raise InfluenceError unless the adapter that is about to speak has the weights that were trained."""
    if not folder.is_dir():
        raise InfluenceError(
            f"{folder} is gone, and the agent of this iteration with it.", hint="Restore it, or start a new run."
        )
    found = adapter_digest(folder)
    if found != digest:
        raise InfluenceError(
            f"{folder} is not the adapter that was trained: its weights are {found[:12]}, not {digest[:12]}.",
            hint="Restore it, or start a new run.",
        )
