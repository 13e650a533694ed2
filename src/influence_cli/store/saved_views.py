"""Saved views: a name, a query and an order, kept for one person and all runs.

They stand in ``views.json`` in the configuration folder (``INFLUENCE_CONFIG_DIR``, else ``XDG_CONFIG_HOME``/influence,
else ``~/.config/influence``).
"""

from __future__ import annotations

import os
from pathlib import Path

import orjson
from pydantic import Field, ValidationError

from influence_cli.errors import InfluenceError
from influence_cli.schemas.frozen import Frozen
from influence_cli.store.connection import file_error
from influence_cli.store.exporters import whole_file

FILE = "views.json"


class SavedView(Frozen):
    """A view of the table of trajectories."""

    name: str = Field(min_length=1, max_length=60, description="What it is called.")
    query: str = Field(default="", description="Which conversations.")
    order: str = Field(default="number", description="The field that they are sorted by.")
    descending: bool = Field(default=False, description="Largest first.")


SHIPPED = (
    SavedView(name="worst first", order="veto", descending=True),
    SavedView(name="rated well, vetoed", query="rating>=7 and veto>=0.5", order="veto", descending=True),
    SavedView(name="gameable users", query="population:gameable", order="rating", descending=True),
    SavedView(name="failures", query="failures>0 or status:failed", order="failures", descending=True),
    SavedView(name="flagged", query="flag=1"),
    SavedView(name="not labelled", query="labels=0"),
)
"""Views that everybody has."""


def config_folder() -> Path:
    """Return the folder of this person's settings; it need not exist."""
    own = os.environ.get("INFLUENCE_CONFIG_DIR")
    if own:
        return Path(own)
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "influence"


def saved_views(folder: Path) -> list[SavedView]:
    """Return the shipped views and this person's own; one of the same name takes a shipped one's place."""
    return list({view.name: view for view in (*SHIPPED, *_own(folder))}.values())


def save_view(folder: Path, view: SavedView) -> None:
    """Keep ``view``; InfluenceError where it cannot be written."""
    _write(folder, [*(each for each in _own(folder) if each.name != view.name), view])


def forget_view(folder: Path, name: str) -> bool:
    """Forget a view of this person's own; return whether there was one."""
    own = _own(folder)
    rest = [view for view in own if view.name != name]
    if len(rest) < len(own):
        _write(folder, rest)
    return len(rest) < len(own)


def _own(folder: Path) -> list[SavedView]:
    path = folder / FILE
    try:
        entries = orjson.loads(path.read_bytes())
        return [SavedView.model_validate(entry) for entry in entries]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, ValidationError):
        raise InfluenceError(f"{path} is no list of views.", hint="Mend it, or remove it.") from None


def _write(folder: Path, views: list[SavedView]) -> None:
    path = folder / FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise file_error(error, folder) from None
    with whole_file(path) as temporary:
        temporary.write_bytes(orjson.dumps([view.model_dump() for view in views], option=orjson.OPT_INDENT_2))
