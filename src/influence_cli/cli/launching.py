"""What commands that start others have in common: naming a launcher, how work is split, and what each part needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Annotated, Any

import typer

from influence_cli.cli import output
from influence_cli.errors import EXIT_FAILURES, InfluenceError

if TYPE_CHECKING:
    from influence_cli.launching.protocol import Resources
    from influence_cli.plugins.registry import PluginRegistry
    from influence_cli.sharding.splitting import Sharding
    from influence_cli.sittings.detaching import Launched, Place

_WHERE = "Where it runs"

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


def launcher_options(texts: Sequence[str] | None) -> dict[str, Any]:
    """Return the options of ``KEY=VALUE`` entries; InfluenceError for one that is none."""
    from influence_cli.settings import parse_assignment

    return dict(parse_assignment(text, flag="--launcher-option") for text in texts or [])


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


def place_of(launcher: str | None, options: Sequence[str] | None, resources: str | None, *, detach: bool) -> Place:
    """Return where a command is to run; InfluenceError for what cannot be read."""
    from influence_cli.resolution import LOCAL
    from influence_cli.sittings.detaching import Place

    return Place(launcher or LOCAL, launcher_options(options), parse_resources(resources), detach)


def sharding_of(
    registry: PluginRegistry,
    shards: int | None,
    launcher: str | None,
    options: Sequence[str] | None,
    resources: str | None,
    *,
    patience: float,
    restarts: int,
    dry: bool = False,
) -> Sharding | None:
    """Return how a command's work is split; None where this process does it all, or nothing is done (``dry``).

    InfluenceError for what is wrong.
    """
    from influence_cli.resolution import LOCAL, check_launcher
    from influence_cli.sharding.splitting import Launching, sharding_with

    if shards is None and launcher is None:
        if options or resources:
            raise InfluenceError("Nothing is launched here.", hint="Add --shards N or --launcher NAME.")
        return None
    how = Launching(launcher or LOCAL, launcher_options(options), parse_resources(resources), patience, restarts)
    if dry:
        check_launcher(registry, how.name, how.options)
        return None
    return sharding_with(registry, shards, how)


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


def show_launched(launched: Launched, *, as_json: bool) -> None:
    """Show what became of a command that was launched; end with its exit code."""
    if as_json:
        output.emit_json(launched.document())
    elif launched.code is None:
        output.emit_text(f"Job {launched.job} works on {launched.folder}.")
        output.emit_text(f"To look at it: influence jobs list; influence jobs logs {launched.job} --follow")
    else:
        output.emit_text(f"To look at it: influence runs show {launched.folder}")
    if launched.code:
        raise typer.Exit(launched.code if launched.code > 0 else EXIT_FAILURES)
