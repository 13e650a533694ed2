"""From the name of a model to the folder it lies in.

A name is, in this order: ``smollm2``; an existing folder; a ``.gguf`` file (converted once into the cache); a model on
the hub, taken from the local Hugging Face cache if it is there.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from influence_cli.api import InfluenceError
from influence_transformers import smollm2
from influence_transformers.conversion import convert_gguf
from influence_transformers.folders import cached_on_hub, fetch_from_hub, locked, models_dir, place


def resolve_model(name: str, revision: str | None = None) -> Path:
    """Return the folder of the model called ``name``, fetched or converted if need be; InfluenceError if there is none."""
    if name == smollm2.NAME:
        return smollm2.fetch()
    path = Path(name).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise InfluenceError(f"The folder {path} holds no model: it has no config.json.")
        return path.resolve()
    if path.suffix == ".gguf":
        if not path.is_file():
            raise InfluenceError(f"There is no file {path}.")
        return _converted(path.resolve())
    if path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        raise InfluenceError(
            f"There is no folder {path}.", hint="A model is smollm2, a hub name, a folder or a .gguf file."
        )
    found = cached_on_hub(name, revision) or fetch_from_hub(name, revision)
    if found is None:
        raise InfluenceError(
            f"The model {name!r} is not on this machine, and the Hugging Face hub cannot be reached.",
            hint="Use transformers:smollm2 or a local folder, or unset HF_HUB_OFFLINE if it is set.",
        )
    return found


def _converted(path: Path) -> Path:
    """Return the folder into which a GGUF file is converted; a changed file (size, time) is converted anew."""
    stat = path.stat()
    key = hashlib.blake2b(f"{path}\0{stat.st_size}\0{stat.st_mtime_ns}".encode(), digest_size=8).hexdigest()
    name = f"gguf-{path.stem}-{key}"
    target = models_dir() / name
    if not target.is_dir():
        with locked(name):
            if not target.is_dir():
                place(target, lambda made: convert_gguf(path, made))
    return target
