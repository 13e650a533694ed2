"""One sitting with a person in it: who takes the user's or the agent's part in one conversation, which is a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from influence_cli.errors import UnknownNameError
from influence_cli.listening import Listener
from influence_cli.plugins.registry import PluginRegistry
from influence_cli.simulation.summing import Summary
from influence_cli.sittings.simulate import begin, talk
from influence_cli.sittings.sources import Sources
from influence_cli.store.reader import RunReader
from influence_cli.store.run_directory import open_run

PARTS = ("user", "agent")


@dataclass(frozen=True)
class Rest:
    """What a person has not seen of a conversation that is over: who said what after their last word, and why it ended.

    ``asked`` is whether it ever was their turn.
    """

    messages: Sequence[tuple[str, str]]
    reason: str
    asked: bool


def play(
    registry: PluginRegistry,
    part: str,
    settings: Mapping[str, Any],
    out: Path | None,
    heard: Listener,
    *,
    folders: Sequence[Path] = (),
    flag_names: Mapping[str, str],
    begins: Callable[[], None],
) -> Summary:
    """Have one conversation in which the person at the terminal is ``part``; ``begins`` hears that it does.

    ``settings`` by their dotted keys; InfluenceError for whatever the user can mend.
    """
    if part not in PARTS:
        raise UnknownNameError("part", part, PARTS)
    flags = {**settings, "n": 1, "speculate": False, f"roles.{part}.model": "terminal:you"}
    sitting = begin(registry, Sources(flags, folders=folders, flag_names=flag_names), out, heard)
    begins()
    return talk(sitting, heard)


def rest(path: Path, part: str) -> Rest | None:
    """Return what ``part`` has not seen of the conversation in the run at ``path``, or all of it if they were never asked."""
    with RunReader(open_run(path)) as run:
        trajectory = next(iter(run.trajectories()), None)
    if trajectory is None:
        return None
    messages = trajectory["messages"]
    own = [place for place, each in enumerate(messages) if each["speaker"] == part and each["source"] == "model"]
    unseen = [
        (each["speaker"], each["text"])
        for each in messages[own[-1] + 1 if own else 0 :]
        if each["text"] and (part == "agent" or each["speaker"] != "tool")
    ]
    return Rest(unseen, trajectory["reason"].replace("_", " "), asked=bool(own))
