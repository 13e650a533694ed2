"""Where models lie on this machine, and how they get there.

Invariants: a folder under :func:`models_dir` is complete, because :func:`place` makes it beside its place and renames
it; what a killed process left half-made is removed by the next that makes the same; with ``HF_HUB_OFFLINE`` the network
is not touched; an unreachable hub costs seconds, not minutes.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from influence_cli.api import InfluenceError, cache_folder, report_progress, sync_file, sync_folder

_PROBE_SECONDS = 4.0
_FILES = ["*.json", "*.jinja", "*.txt", "*.model", "*.safetensors"]


def models_dir() -> Path:
    """Return the folder of models that we made, in the program's cache."""
    return cache_folder() / "models"


@contextmanager
def locked(name: str) -> Iterator[None]:
    """Hold the lock under which a model of this name is made; others wait."""
    import filelock

    folder = models_dir()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(folder / f".{name}.lock")
        try:
            lock.acquire(timeout=0.1)
        except filelock.Timeout:
            report_progress(f"Waiting for another process that prepares {name}", 0.0)
            lock.acquire()
    except OSError as error:
        raise InfluenceError(
            f"The model cache {folder} cannot be written: {error.strerror or error}",
            hint="Set INFLUENCE_CACHE_DIR to a folder that can.",
        ) from error
    try:
        yield
    finally:
        lock.release()


def place(target: Path, make: Callable[[Path], None]) -> Path:
    """Return ``target``, made by ``make`` in a folder beside it and renamed when complete and on the disk.

    Whoever calls this holds the lock of its name (:func:`locked`): what lies in that folder is left of a killed process.
    """
    made = target.with_name(f".{target.name}.half")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(made, ignore_errors=True)
        try:
            made.mkdir()
            make(made)
            for file in filter(Path.is_file, made.rglob("*")):
                sync_file(file)
            if target.exists():  # and is no model, or it would not be made
                shutil.rmtree(target)
            made.rename(target)
        finally:
            shutil.rmtree(made, ignore_errors=True)
        sync_folder(target.parent)
    except OSError as error:
        raise InfluenceError(
            f"The model could not be written to {target}: {error.strerror or error}",
            hint="Free some disk space, or set INFLUENCE_CACHE_DIR to another folder.",
        ) from error
    return target


def cached_on_hub(repository: str, revision: str | None) -> Path | None:
    """Return the complete snapshot of a hub model in the local Hugging Face cache, if there is one."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        found = Path(snapshot_download(repository, revision=revision, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError, OSError):
        return None
    return found if (found / "config.json").exists() and any(found.glob("*.safetensors")) else None


def fetch_from_hub(repository: str, revision: str | None) -> Path | None:
    """Return the folder of a hub model, fetched; None if the hub cannot be reached or may not be asked.

    Raises InfluenceError where the hub answers that there is no such model, or that it is gated.
    """
    from huggingface_hub import HfApi, constants, snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, HFValidationError, RepositoryNotFoundError

    if constants.is_offline_mode():
        return None
    try:
        info = HfApi().model_info(repository, revision=revision, timeout=_PROBE_SECONDS)
    except GatedRepoError as error:
        raise InfluenceError(
            f"The model {repository!r} is gated.", hint="Accept its terms on the hub and set HF_TOKEN."
        ) from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise InfluenceError(
            f"The hub knows no model {repository!r}{f' at {revision!r}' if revision else ''}.",
            hint="Names look like HuggingFaceTB/SmolLM2-135M-Instruct; private models need HF_TOKEN.",
        ) from error
    except (HfHubHTTPError, OSError, RuntimeError, _transport_error()):
        return None
    report_progress(f"Fetching {repository}", 0.0)
    folder = snapshot_download(repository, revision=info.sha, allow_patterns=_FILES, ignore_patterns=["*/*"])
    report_progress(f"Fetching {repository}", 1.0)
    return Path(folder)


def _transport_error() -> type[Exception]:
    """Return what the hub's client raises without a network; the library behind it changes, the name does not."""
    from huggingface_hub import errors

    error: type[Exception] = vars(errors)["HTTPError"]
    return error
