"""Finding environments by name or path, in the order of :mod:`influence_cli.environments.places`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from influence_cli.environments.environment import Environment
from influence_cli.environments.loading import load_environment
from influence_cli.environments.places import found_environments
from influence_cli.errors import InfluenceError, UnknownNameError
from influence_cli.sanitize import visible


def find_environment(name: str, path: Sequence[Path]) -> Environment:
    """Return the environment called ``name``, or that of the folder ``name`` if it looks like a path.

    Raises UnknownNameError with the nearest names, DocumentError if its files have problems.
    """
    if os.sep in name or name.startswith(".") or (os.altsep and os.altsep in name):
        return load_environment(_folder(name))
    found = {each.name: each.folder for each in found_environments(path)}
    if name not in found:
        note = f"A folder is named with a slash: ./{name}" if _is_folder(name) else ""
        raise UnknownNameError("environment", name, found, note=note)
    return load_environment(found[name])


def _folder(name: str) -> Path:
    try:
        folder = Path(name).expanduser().resolve()
        folder.stat()
    except FileNotFoundError:
        raise InfluenceError(f"There is no folder {visible(name[:200], newlines=False)}.") from None
    except (OSError, ValueError, RuntimeError):
        raise InfluenceError(f"{visible(name[:200], newlines=False)} is no path that can be read.") from None
    return folder


def _is_folder(name: str) -> bool:
    try:
        return Path(name).is_dir()
    except (OSError, ValueError):
        return False
