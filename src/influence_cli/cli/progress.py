"""How a running simulation looks: a live panel on a terminal, plain lines elsewhere.

Invariant: displays only read the tally; nothing they do can slow or change a run.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from influence_cli.sittings.lines import clock, line, remaining

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from influence_cli.simulation.tally import Tally

_LIVE_EVERY = 0.25
_PLAIN_EVERY = 10.0
_ROLE_ORDER = ("agent", "user", "preference", "transition", "veto")


async def show_progress(tally: Tally, console: Console, notes: Mapping[str, str]) -> None:
    """Show ``tally`` until cancelled; ``notes`` maps a heading (``Run``, ``Model``) to what stands there."""
    if console.is_terminal:
        await _live(tally, console, notes)
    else:
        await _plain(tally, console)


async def _live(tally: Tally, console: Console, notes: Mapping[str, str]) -> None:
    from rich.live import Live

    # Redirection would give sys.stderr another face, and what is said meanwhile another console.
    with Live(
        console=console, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False
    ) as live:
        while True:
            live.update(panel(tally, notes), refresh=True)
            await asyncio.sleep(_LIVE_EVERY)


async def _plain(tally: Tally, console: Console) -> None:
    while True:
        await asyncio.sleep(_PLAIN_EVERY)
        console.print(line(tally), markup=False, highlight=False, soft_wrap=True)


def panel(tally: Tally, notes: Mapping[str, str]) -> RenderableType:
    """Return the live display of ``tally``."""
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    heading = Table.grid(padding=(0, 1))
    for name, value in notes.items():
        heading.add_row(Text(name, style="bold"), Text(value, overflow="ellipsis", no_wrap=True))
    bar = Table.grid(padding=(0, 1))
    bar.add_row(
        ProgressBar(total=max(tally.total, 1), completed=tally.done, width=30),
        Text(f"{tally.done}/{tally.total} conversations"),
        Text(f"{clock(time.monotonic() - tally.started)} gone, {remaining(tally)} left", style="dim"),
    )
    return Group(heading, bar, _facts(tally), _roles(tally))


def _facts(tally: Tally) -> RenderableType:
    from rich.text import Text

    facts = Text(f"{tally.active} in progress, {tally.turns} turns ended", no_wrap=True, overflow="ellipsis")
    if tally.ratings:
        facts.append(f", mean rating of turns {tally.rating_sum / tally.ratings:.2f}")
    if tally.cost:
        facts.append(f", ${tally.total_cost:.2f}")
    if tally.unusable:
        facts.append(f", {sum(tally.unusable.values())} unusable judgements", style="yellow")
    if tally.failed:
        facts.append(f", {tally.failed} failed", style="red")
    if tally.stop:
        facts.append("  stopping ...", style="bold yellow")
    return facts


def _roles(tally: Tally) -> RenderableType:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("role")
    for heading in ("calls", "failed", "prompt tok", "cached", "reply tok", "tok/s", "s/call"):
        table.add_column(heading, justify="right")
    elapsed = max(time.monotonic() - tally.started, 1e-9)
    for name, role in sorted(tally.roles.items(), key=lambda item: _ROLE_ORDER.index(item[0])):
        share = f"{role.cached_tokens / role.prompt_tokens:.0%}" if role.prompt_tokens else ""
        fresh = role.prompt_tokens - role.cached_tokens + role.completion_tokens
        table.add_row(
            name,
            f"{role.calls:,}",
            f"{role.failed:,}" if role.failed else "",
            f"{role.prompt_tokens:,}",
            share,
            f"{role.completion_tokens:,}",
            f"{fresh / elapsed:,.0f}",
            f"{role.latency / role.calls:.2f}" if role.calls else "",
        )
    return table
