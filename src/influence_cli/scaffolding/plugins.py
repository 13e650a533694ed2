"""A new plugin that passes its own tests from the start, for an author to change."""

from __future__ import annotations

import keyword
import re
from importlib import resources
from pathlib import Path
from typing import Literal, get_args

from influence_cli import __version__
from influence_cli.environments.scaffold import write_scaffold
from influence_cli.errors import InfluenceError, UnknownNameError
from influence_cli.plugins.registry import PluginRegistry
from influence_cli.resolution import known_environments

PluginKind = Literal["backend", "environment", "algorithm", "scorer"]
KINDS: tuple[PluginKind, ...] = get_args(PluginKind)
_TEMPLATES = "templates"
_NAME = re.compile(r"(?=.{1,60}\Z)[a-z][a-z0-9]*(-[a-z0-9]+)*\Z")
_USAGE: dict[PluginKind, str] = {
    "backend": "influence simulate --env therapy --model @name@:any --n 4",
    "environment": "influence simulate --env @name@ --n 4",
    "algorithm": "influence train --env therapy --algo @name@ --dry-run",
    "scorer": "influence score latest --with @name@",
}


def write_plugin(registry: PluginRegistry, kind: str, name: str, parent: Path) -> Path:
    """Return the folder ``influence-NAME`` of a new plugin under ``parent``; InfluenceError if it cannot be made."""
    if kind not in KINDS:
        raise UnknownNameError("kind of plugin", kind, KINDS)
    _check_name(registry, kind, name)
    folder = parent / f"influence-{name}"
    if folder.exists():
        raise InfluenceError(f"{folder} exists already.", hint="Choose another name, or remove it.")
    package = f"influence_{name.replace('-', '_')}"
    known: PluginKind = next(each for each in KINDS if each == kind)
    words = {
        "usage": _USAGE[known].replace("@name@", name),
        "name": name,
        "kind": kind,
        "package": package,
        "Class": "".join(part.capitalize() for part in name.split("-")),
        "version": __version__,
    }
    try:
        for target, template in _files(known, package, name).items():
            path = folder / target
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(_filled(template, words), encoding="utf-8")
        (folder / "src" / package / "py.typed").touch()
    except OSError as error:
        raise InfluenceError(f"{folder} cannot be written: {error.strerror}.") from None
    if kind == "environment":
        write_scaffold(name, folder / "src" / package / "environments")
    return folder


def _check_name(registry: PluginRegistry, kind: str, name: str) -> None:
    if not _NAME.match(name) or keyword.iskeyword(name):
        hint = "Small letters, digits and hyphens, a letter first; for instance loud-parrot."
        raise InfluenceError(f"{name!r} is no name for a plugin.", hint=hint)
    if kind == "environment" and name in known_environments(registry):
        raise InfluenceError(f"An environment is called {name} already.", hint="Choose another name.")
    taken = {offer.component.name: offer for offer in registry.offers(kind)}  # type: ignore[arg-type]
    if name in taken:
        raise InfluenceError(
            f"{taken[name].distribution} offers the {kind} {name} already.", hint="Choose another name."
        )


def _files(kind: PluginKind, package: str, name: str) -> dict[str, str]:
    """Return which template becomes which file."""
    inside = f"src/{package}"
    files = {
        "pyproject.toml": "common/pyproject.toml",
        "README.md": "common/README.md",
        f"{inside}/__init__.py": f"{kind}/__init__.py",
        f"tests/test_{name.replace('-', '_')}.py": f"{kind}/test.py",
    }
    if kind != "environment":
        files |= {f"{inside}/options.py": f"{kind}/options.py", f"{inside}/{kind}.py": f"{kind}/{kind}.py"}
    return files


def _filled(template: str, words: dict[str, str]) -> str:
    text = (
        resources.files("influence_cli.scaffolding")
        .joinpath(_TEMPLATES, *f"{template}.txt".split("/"))
        .read_text("utf-8")
    )
    for word, value in words.items():
        text = text.replace(f"@{word}@", value)
    return text
