"""What commands that start others have in common: naming a launcher, what each task needs, and the command itself."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Annotated, Any

import typer

from influence_cli.errors import InfluenceError

if TYPE_CHECKING:
    from influence_cli.launching.protocol import Launcher, Resources
    from influence_cli.plugins.registry import PluginRegistry

_WHERE = "Where it runs"
LOCAL = "local"

LauncherName = Annotated[
    str | None, typer.Option("--launcher", help="Who starts the processes: local, ray, slurm.", rich_help_panel=_WHERE)
]
LauncherOptions = Annotated[
    list[str] | None, typer.Option("--launcher-option", help="KEY=VALUE for the launcher.", rich_help_panel=_WHERE)
]
ResourcesText = Annotated[
    str | None,
    typer.Option(
        "--resources", help="Of each process: gpus=1,cpus=4,memory_gb=32,minutes=240.", rich_help_panel=_WHERE
    ),
]
Shards = Annotated[
    int | None,
    typer.Option("--shards", min=1, help="Split the conversations over N processes.", rich_help_panel=_WHERE),
]
OneShard = Annotated[
    str | None, typer.Option("--shard", help="By hand: only this part, as 2/4.", rich_help_panel=_WHERE)
]
SpentSince = Annotated[
    float | None,
    typer.Option(help="With --shard: what scores took since then, in seconds, is spent.", rich_help_panel=_WHERE),
]
Patience = Annotated[
    float,
    typer.Option(
        "--hang-after", min=0.1, help="Seconds without a call before a shard is started anew.", rich_help_panel=_WHERE
    ),
]
Restarts = Annotated[
    int, typer.Option("--restarts", min=0, help="How often a shard is started anew at most.", rich_help_panel=_WHERE)
]
Detach = Annotated[
    bool, typer.Option("--detach", help="Leave it to itself; see influence jobs.", rich_help_panel=_WHERE)
]
OF_LAUNCHING = ("--launcher", "--launcher-option", "--resources", "--shards", "--hang-after", "--restarts")
"""Options with a value that say how a command is started, and are not handed on to what is started."""
_OF_SHOWING = ("--json", "--quiet", "-q")


def launcher_of(registry: PluginRegistry, name: str | None, options: Sequence[str] | None) -> Launcher:
    """Return the launcher called ``name``, this machine's by default; InfluenceError for what is wrong."""
    return launcher_with(registry, name or LOCAL, launcher_options(options))


def launcher_options(texts: Sequence[str] | None) -> dict[str, Any]:
    """Return the options of ``KEY=VALUE`` entries; InfluenceError for one that is none, or that seems to hold a key."""
    from influence_cli.cli.provenance import refuse_secrets_in
    from influence_cli.settings import parse_assignment

    options = dict(parse_assignment(text, flag="--launcher-option") for text in texts or [])
    refuse_secrets_in(options, "A --launcher-option", "it is kept with the job")
    return options


def check_launcher(registry: PluginRegistry, name: str, options: Mapping[str, Any]) -> None:
    """Raise InfluenceError for what is wrong with a launcher's name or options, without making it."""
    from influence_cli.plugins.options import validate_options

    validate_options(registry.component("launcher", name), options, flag="--launcher-option ")


def launcher_with(registry: PluginRegistry, name: str, options: Mapping[str, Any]) -> Launcher:
    """Return the launcher called ``name`` with ``options``; InfluenceError for what is wrong."""
    from influence_cli.plugins.options import validate_options

    component = registry.component("launcher", name)
    made: Launcher = component.load()(validate_options(component, options, flag="--launcher-option "))
    return made


def parse_resources(text: str | None) -> Resources:
    """Return what ``gpus=1,cpus=4`` asks for; InfluenceError for what cannot be read."""
    from influence_cli.launching.protocol import Resources

    kinds: dict[str, Any] = {"gpus": int, "cpus": int, "memory_gb": float, "minutes": int}
    assert set(kinds) == {field.name for field in fields(Resources)}
    given: dict[str, Any] = {}
    for part in filter(None, (part.strip() for part in (text or "").split(","))):
        name, _, value = part.partition("=")
        try:
            given[name] = kinds[name.strip()](value)
        except (KeyError, ValueError):
            given[name] = -1
        if given[name] < (0 if name == "gpus" else 1e-9):
            known = ", ".join(kinds)
            raise InfluenceError(f"--resources {part!r} cannot be read.", hint=f"NAME=NUMBER with {known}.")
    return Resources(**given)


def own_command(command: Any, run: str) -> tuple[str, ...]:
    """Return the command line of this process with ``run`` for its argument: what that means may change, as of ``latest``.

    ``command`` is the Click command that runs. Options that say how it is started or shown are left out.
    """
    words = sys.argv[1:]
    begins = next(place for place, word in enumerate(words) if not word.startswith("-")) + 1
    begins += words[begins : begins + 1] == [command.name]
    takes = {
        name: not option.is_flag
        for option in command.params
        if option.param_type_name == "option"
        for name in (*option.opts, *option.secondary_opts)
    }
    kept = words[:begins]
    for name, value in _options(words[begins:], takes):
        if name not in (*OF_LAUNCHING, *_OF_SHOWING):
            kept += [name] if value is None else [f"{name}={value}"] if name.startswith("--") else [name, value]
    return program(*kept, run)


def _options(words: Sequence[str], takes: Mapping[str, bool]) -> Iterator[tuple[str, str | None]]:
    """Yield the options in ``words`` with their values, None of a flag; ``takes`` tells which have one."""
    waiting = iter(words)
    for word in waiting:
        if word == "--":
            return
        if word.startswith("--"):
            name, separator, value = word.partition("=")
            yield name, (value if separator else next(waiting, "")) if takes.get(name) else None
        elif word.startswith("-"):
            letters = word[1:]
            while letters:
                name, letters = f"-{letters[0]}", letters[1:]
                if takes.get(name):
                    yield name, letters or next(waiting, "")
                    break
                yield name, None


def launching_arguments(
    shards: int | None,
    launcher: str | None,
    options: Sequence[str] | None,
    resources: str | None,
    *,
    patience: float,
    restarts: int,
) -> list[str]:
    """Return the arguments that say how work is split and started; none where it is neither."""
    if shards is None and launcher is None:
        return []
    named = {"--shards": shards, "--launcher": launcher, "--resources": resources}
    given = {**named, "--hang-after": patience, "--restarts": restarts}
    arguments = [part for name, value in given.items() if value is not None for part in (name, str(value))]
    return arguments + [part for option in options or [] for part in ("--launcher-option", option)]


def program(*arguments: str) -> tuple[str, ...]:
    """Return the command line of this program with ``arguments``."""
    return (sys.executable, "-m", "influence_cli", *arguments)
