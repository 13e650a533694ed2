"""What it means that a shard ended: it is done, is worth another start, or is over without being done.

Concept: an exit code alone is not believed. A shard that ended well must hold its conversations; one that ended by an exit
code of this program has said in its database, or beside its log, how it went; everything else is a death.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from influence_cli.errors import EXIT_DONE, EXIT_FAILURES, EXIT_STOPPED, InfluenceError
from influence_cli.launching.logs import last_lines, told_error
from influence_cli.launching.protocol import LOST
from influence_cli.launching.supervision import Verdict
from influence_cli.simulation.counting import ended_count, failed_for_now, last_stop
from influence_cli.simulation.tally import PASSING_KINDS, StopReason
from influence_cli.store.reader import RunReader
from influence_cli.store.run_directory import RunDirectory
from influence_cli.store.shards import Shard

BUDGET = "its part of the budget is used up"
LIMITS = ("cost", "tokens")
"""Reasons to stop that are limits."""
OWN_CODES = (EXIT_DONE, EXIT_FAILURES, EXIT_STOPPED)
"""Exit codes of this program after which a shard's database says how it went."""


@dataclass(frozen=True)
class Held:
    """What a shard's database says of its last sitting."""

    failed: Mapping[str, int]
    """Conversations by kind of failure, of kinds that may be over soon."""
    stop: StopReason | None
    ended: int
    """Conversations that are over, in all sittings."""


def held(shard: RunDirectory) -> Held | None:
    """Return what the database of ``shard`` says; None where there is none."""
    if not shard.database.is_file():
        return None
    with RunReader(shard) as reader:
        return Held(failed_for_now(reader), last_stop(reader), ended_count(reader))


def of_simulation(code: int, found: Held | None, wanted: int) -> Verdict:
    """Return what it means that a shard, which is to have ``wanted`` conversations, ended with ``code``."""
    died = Verdict("again", death(code))
    if code not in OWN_CODES or found is None:
        return died
    if code == EXIT_STOPPED:
        return Verdict("over", BUDGET) if found.stop in LIMITS else Verdict("again", "was stopped")
    if found.failed:
        return Verdict("again", f"{sum(found.failed.values())} conversations failed ({_kinds(found.failed)})")
    if found.stop == "alike":
        return Verdict("over", "all its conversations failed alike")
    return Verdict("done") if found.ended >= wanted else died


def of_scoring(code: int, told: Mapping[str, Any]) -> Verdict:
    """Return what it means that a shard of scoring ended with ``code`` and had ``told`` so last of its counters."""
    if code == EXIT_STOPPED:
        return Verdict("over", BUDGET) if told.get("stop") in LIMITS else Verdict("again", "was stopped")
    if code == EXIT_FAILURES and told.get("ended"):
        failed = {kind: count for kind, count in told["failed"].items() if kind in PASSING_KINDS}
        if not failed:  # asked again, these fail again: how many may is for the sitting as a whole to say
            return Verdict("done")
        return Verdict("again", f"{sum(failed.values())} scores failed ({_kinds(failed)})")
    return Verdict("done") if code == EXIT_DONE else Verdict("again", death(code))


def _kinds(failed: Mapping[str, int]) -> str:
    return ", ".join(sorted(kind.replace("_", " ") for kind in failed))


def death(code: int) -> str:
    """Return what an exit code that is none of this program's means."""
    if code == LOST:
        return "was lost: nobody knows how it ended"
    return f"died of signal {-code}" if code < 0 else f"died with exit code {code}"


def user_mistake(shard: Shard | None, log: Path) -> InfluenceError:
    """Return the error of a shard that ended by a mistake of the user's: no other start would mend it."""
    told = told_error(log) or (last_lines(log) or [f"see {log}"])[-1]
    return InfluenceError(f"Shard {shard} cannot go on: {told}")
