"""What a running simulation shows, from a made-up tally."""

import asyncio
import io
import time
from collections import Counter

import pytest
from rich.console import Console
from tests.waiting import until

from influence_cli.cli import progress
from influence_cli.cli.progress import panel, show_progress
from influence_cli.simulation.tally import RoleTally, Tally
from influence_cli.sittings.lines import clock, line, remaining

NOTES = {"Run": "runs/20260101-120000-simulate-larch", "Model": "openai:" + "a-very-long-name-" * 8}


def tally(**changes) -> Tally:
    """Forty of a hundred conversations in this sitting's first hundred seconds, ten before it."""
    facts = {
        "total": 100,
        "started": time.monotonic() - 100,
        "earlier_done": 10,
        "active": 16,
        "complete": 37,
        "failed": 3,
        "turns": 1234,
        "ratings": 1000,
        "rating_sum": 7250.0,
        "cost": 1.5,
        "unusable": Counter({"preference": 4, "veto": 1}),
        "roles": {
            "veto": RoleTally(calls=10, prompt_tokens=1000, completion_tokens=10, latency=5),
            "agent": RoleTally(
                calls=2000,
                failed=12,
                prompt_tokens=1_000_000,
                cached_tokens=750_000,
                completion_tokens=50_000,
                latency=3000,
            ),
        },
    }
    return Tally(**{**facts, **changes})


def shown(renderable, width=80) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=False, color_system=None)
    console.print(renderable)
    return console.file.getvalue()


def test_the_line_tells_everything_that_matters():
    assert line(tally()) == (
        "50/100 conversations; 16 in progress; 1234 turns; 2010 calls; 3,010 tokens/s; mean rating of turns 7.25; $1.50; "
        "3 failed; 5 unusable judgements; left 2:05"
    )


def test_the_line_of_a_run_that_just_began_is_short():
    fresh = Tally(total=8, started=time.monotonic() - 1)
    assert line(fresh) == "0/8 conversations; 0 in progress; 0 turns; 0 calls; 0 tokens/s; left ?"


def test_time_left_is_by_the_pace_of_this_sitting():
    assert remaining(tally(earlier_done=90, complete=5, failed=0, started=time.monotonic() - 10)) == "0:10"
    assert remaining(tally(complete=0, failed=0)) == "?"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.4, "0:59"), (59.6, "1:00"), (3599, "59:59"), (3600, "1:00:00"), (-1, "0:00")]
)
def test_a_clock(seconds, text):
    assert clock(seconds) == text


def test_the_panel_fits_eighty_columns():
    text = shown(panel(tally(), NOTES))
    assert max(map(len, text.splitlines())) <= 80
    assert len(text.splitlines()) <= 10


def test_the_panel_tells_run_model_conversations_rating_cost_and_failures():
    text = shown(panel(tally(), NOTES), width=120)
    assert "runs/20260101-120000-simulate-larch" in text
    assert "50/100 conversations" in text
    assert "1:40 gone, 2:05 left" in text
    assert "16 in progress, 1234 turns ended, mean rating of turns 7.25, $1.50, 5 unusable judgements, 3 failed" in text
    assert "stopping" not in text
    assert "stopping ..." in shown(panel(tally(stop="signal"), NOTES), width=120)


def test_the_panel_has_a_row_for_each_role_in_the_order_of_a_turn():
    rows = [row.split() for row in shown(panel(tally(), NOTES)).splitlines()]
    agent, veto = (next(row for row in rows if row[:1] == [role]) for role in ("agent", "veto"))
    assert rows.index(agent) < rows.index(veto)
    assert agent == ["agent", "2,000", "12", "1,000,000", "75%", "50,000", "3,000", "1.50"]


def test_the_panel_of_a_run_that_just_began():
    assert "0/8 conversations" in shown(panel(Tally(total=8), {}))


async def shown_with(console: Console, text: str, times: int) -> str:
    """Show progress until ``text`` was written so many times; return all that was."""
    task = asyncio.create_task(show_progress(tally(), console, NOTES))
    try:
        await until(lambda: console.file.getvalue().count(text) >= times)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    return console.file.getvalue()


async def test_elsewhere_than_on_a_terminal_plain_lines_are_printed(monkeypatch):
    monkeypatch.setattr(progress, "_PLAIN_EVERY", 0.02)
    text = await shown_with(Console(file=io.StringIO(), width=80), "\n", 2)
    assert text.startswith("50/100 conversations; 16 in progress;")
    assert "\x1b" not in text


async def test_on_a_terminal_a_panel_is_redrawn_and_taken_away(monkeypatch):
    monkeypatch.setattr(progress, "_LIVE_EVERY", 0.02)
    console = Console(file=io.StringIO(), width=80, force_terminal=True)
    text = await shown_with(console, "50/100 conversations", 2)
    assert text.endswith("\x1b[2K")
