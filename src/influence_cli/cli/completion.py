"""What a shell completes: names of environments, runs, models and rubrics, found without importing anything heavy.

Every parameter of a name in :data:`COMPLETED` is completed, whichever command it belongs to, those of plugins too.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from influence_cli.plugins.hookspecs import NAME

_RUNS = Path("runs")
_BUILT_IN_BACKENDS = ("scripted:demo", "terminal:")
_EMBEDDED = "transformers:smollm2"
_RUBRICS = Path(__file__).resolve().parent.parent / "scoring" / "rubrics"
_ID = re.compile(r"^ *- id: ([\w-]+)", re.MULTILINE)
_SPECIAL = ("core", "computed", "environment")


def environments(incomplete: str) -> Iterator[str]:
    """Yield environments that begin so: by name, or folders where a path is begun."""
    from influence_cli.environments.places import found_environments, search_path

    if _is_path(incomplete):
        yield from _folders(incomplete, "environment.yaml")
        return
    paths = [
        path for module in _plugins("influence_environment_paths") for path in module.influence_environment_paths()
    ]
    yield from _beginning((each.name for each in found_environments(search_path((), paths))), incomplete)


def runs(incomplete: str) -> Iterator[str]:
    """Yield runs that begin so: latest, those under ``runs`` by name, or folders where a path is begun."""
    if _is_path(incomplete):
        yield from _folders(incomplete, "run.yaml")
        return
    known = sorted(path.parent.name for path in _RUNS.glob("*/run.yaml"))
    yield from _beginning((["latest"] if known else []) + known, incomplete)


def models(incomplete: str) -> Iterator[str]:
    """Yield backends that begin so, with the colon that a model's name follows.

    A plugin's backend is taken to be called like the plugin: its real name is known only to code that is heavy to load.
    """
    found = [entry.name for entry in metadata.entry_points(group=NAME) if _offers(entry, "influence_backends")]
    own = [_EMBEDDED if f"{name}:" in _EMBEDDED else f"{name}:" for name in found]
    yield from _beginning(sorted({*own, *_BUILT_IN_BACKENDS}), incomplete)


def rubrics(incomplete: str) -> Iterator[str]:
    """Yield rubrics that begin so, after the last comma of what is there."""
    before, comma, begun = incomplete.rpartition(",")
    known = [name for path in sorted(_RUBRICS.glob("*.yaml")) for name in _ID.findall(path.read_text(encoding="utf-8"))]
    for name in _beginning([*_SPECIAL, *sorted(known)], begun):
        yield f"{before}{comma}{name}"


Completer = Callable[[str], Iterable[str]]
COMPLETED: dict[str, Completer] = {
    "env": environments,
    "run": runs,
    "first": runs,
    "second": runs,
    "names": rubrics,
    **dict.fromkeys(("model", "agent", "user", "preference", "transition", "veto", "judge", "control_agent"), models),
}
"""What completes a parameter, by its name."""
_OF = {"env": {"name": environments}, "train": {"source": runs}}
"""The same for a command or the commands under it."""


def complete(group: Any, completed: dict[str, Completer] | None = None) -> None:
    """Let every parameter of the commands in ``group`` be completed that has a name which says what it is."""
    completed = COMPLETED if completed is None else completed
    for name, command in group.commands.items():
        own = {**completed, **_OF.get(name, {})}
        if hasattr(command, "commands"):
            complete(command, own)
            continue
        for parameter in command.params:
            completer = own.get(parameter.name)
            if completer is not None and (name != "new" or parameter.name != "name"):
                parameter._custom_shell_complete = _answering(completer)  # noqa: SLF001 - Typer has no other door once a command is made


def _answering(completer: Completer) -> Callable[[Any, Any, str], list[str]]:
    return lambda _context, _parameter, incomplete: list(completer(incomplete))


def _beginning(names: Iterable[str], incomplete: str) -> Iterator[str]:
    yield from (name for name in names if name.startswith(incomplete))


def _is_path(incomplete: str) -> bool:
    return "/" in incomplete or incomplete.startswith(".")


def _folders(incomplete: str, wanted: str) -> Iterator[str]:
    """Yield folders under the one that is begun which hold the file ``wanted``, and others to go on through."""
    parent, slash, begun = incomplete.rpartition("/")
    folder = Path(parent + slash) if slash else Path()
    try:
        found = sorted(path for path in folder.iterdir() if path.is_dir() and path.name.startswith(begun))
    except OSError:
        return
    for path in found:
        yield f"{parent}{slash}{path.name}{'' if (path / wanted).is_file() else '/'}"


def _plugins(hook: str) -> Iterator[Any]:
    """Yield the modules of loaded plugins that implement ``hook``; all plugins are loaded when commands are made."""
    for entry in metadata.entry_points(group=NAME):
        if _offers(entry, hook):
            yield sys.modules[entry.module]


def _offers(entry: metadata.EntryPoint, hook: str) -> bool:
    return hasattr(sys.modules.get(entry.module), hook)
