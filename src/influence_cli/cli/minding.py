"""What sittings in shards have in common: how the work is split, what signals do, and what a shard's end means."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from influence_cli.cli import output
from influence_cli.cli.launching import launcher_of, parse_resources
from influence_cli.errors import InfluenceError
from influence_cli.launching.protocol import Launcher, Resources
from influence_cli.launching.supervision import Care
from influence_cli.plugins.registry import PluginRegistry

BUDGET = "its part of the budget is used up"


class Stoppable(Protocol):
    """A tally that remembers why its work was stopped."""

    stop: Any


@dataclass(frozen=True)
class Sharding:
    """How a run is split, and who starts the parts."""

    count: int
    launcher: Launcher
    resources: Resources
    care: Care


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
    if shards is None and launcher is None:
        if options or resources:
            raise InfluenceError("Nothing is launched here.", hint="Add --shards N or --launcher NAME.")
        return None
    asked = parse_resources(resources)
    if dry:
        return None
    made = launcher_of(registry, launcher, options)
    return Sharding(shards or 1, made, asked, Care(patience=patience, retries=restarts))


def death(code: int) -> str:
    """Return what an exit code that is none of this program's means."""
    return f"died of signal {-code}" if code < 0 else f"died with exit code {code}"


def on_signals(tally: Stoppable, stop: Callable[[], None], launcher: Launcher) -> None:
    """First SIGINT or SIGTERM: tell the tasks to stop. Second: end them now."""
    loop = asyncio.get_running_loop()
    ending: list[asyncio.Task[None]] = []

    def asked_to_stop() -> None:
        if tally.stop is None:
            tally.stop = "signal"
            stop()
            output.say("Stopping: the shards finish what is in flight; once more to stop now.")
        elif not ending:
            ending.append(asyncio.create_task(launcher.aclose()))

    for number in (signal.SIGINT, signal.SIGTERM):
        with suppress(NotImplementedError, RuntimeError, ValueError):
            loop.add_signal_handler(number, asked_to_stop)


def last_error(log: Path) -> str:
    """Return the last error that a command wrote to its log; where there is none, its last line."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except OSError:
        lines = []
    errors = [text.removeprefix("error: ") for text in lines if text.startswith("error: ")]
    return (errors or lines or [f"see {log}"])[-1]
