"""Where the weights of a model lie, for those who need the files and not the answers."""

from __future__ import annotations

import os
from pathlib import Path

from influence_cli.backends.names import parse_model_name
from influence_cli.errors import InfluenceError
from influence_cli.plugins.registry import make_registry


def cache_folder() -> Path:
    """Return where the program keeps models: INFLUENCE_CACHE_DIR, else ``influence`` in the user's cache."""
    own = os.environ.get("INFLUENCE_CACHE_DIR")
    if own:
        return Path(own).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "influence"


def model_folder(name: str) -> Path:
    """Return the folder with the weights of ``backend:model``, fetched if need be.

    Raises InfluenceError where the backend has no files of its models (a served model), or no such model.
    """
    refuse_served(name)
    model = parse_model_name(name)
    component = make_registry().component("catalog", model.backend)
    folder: Path = component.load()(component.options()).pull(model.model, lambda *_: None)
    return folder


def refuse_served(name: str) -> None:
    """Raise InfluenceError where the backend of ``backend:model`` has no files of its models; fetches nothing."""
    model = parse_model_name(name)
    if model.backend not in {offer.component.name for offer in make_registry().offers("catalog")}:
        raise InfluenceError(
            f"The weights of {model.base} are not on this machine: {model.backend} serves models.",
            hint="Name a local model, for instance transformers:smollm2.",
        )
