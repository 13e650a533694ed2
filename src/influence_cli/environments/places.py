"""Where environments lie, by name. Nothing is read and nothing heavy imported, so that names come in a moment.

Order: folders asked for (``--environments-dir``), the variable ``INFLUENCE_ENVIRONMENTS``, ``./environments``, folders
of plugins, the copy inside the installed package, the checkout. The first folder that has the name wins.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from influence_cli.errors import InfluenceError

ENVIRONMENT_FILE = "environment.yaml"
VARIABLE = "INFLUENCE_ENVIRONMENTS"
"""Names further folders of environments, separated as in PATH."""

_PACKAGE = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Found:
    """An environment's folder, not yet read."""

    name: str
    folder: Path


def search_path(asked: Iterable[Path] = (), from_plugins: Iterable[Path] = ()) -> list[Path]:
    """Return the folders to look in, in order, existing ones only, each once."""
    named = [Path(entry) for entry in os.environ.get(VARIABLE, "").split(os.pathsep) if entry]
    candidates = [
        *asked,
        *named,
        Path("environments"),
        *from_plugins,
        _PACKAGE / "_environments",
        _PACKAGE.parent.parent / "environments",
    ]
    seen: dict[Path, Path] = {}
    for folder in candidates:
        if folder.is_dir():
            seen.setdefault(folder.resolve(), folder)
    return list(seen.values())


def found_environments(path: Sequence[Path]) -> list[Found]:
    """Return every environment on ``path`` by name, reading none of them."""
    found: dict[str, Found] = {}
    for folder in path:
        for entry in _folders(folder):
            found.setdefault(entry.name, Found(entry.name, entry))
    return sorted(found.values(), key=lambda each: each.name)


def _folders(folder: Path) -> Iterator[Path]:
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise InfluenceError(f"{folder} cannot be read: {error.strerror}.") from None
    yield from (entry for entry in entries if (entry / ENVIRONMENT_FILE).is_file())
