"""The command line of the viewer, and pausing a real simulation from outside."""

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
import time

import aiohttp
import pytest
from tests.waiting import wait_until

from influence_cli.cli.view import _own_name, _without_web
from influence_cli.errors import InfluenceError
from influence_cli.store.reader import RunReader
from influence_cli.store.run_directory import open_run
from influence_cli.store.steering import PAUSE, pause_run, stop_run, unpause_run

IN_FLIGHT = 12
"""Calls that may be under way when a pause begins: of two conversations, six roles each."""


def test_a_picture_needs_no_terminal_and_no_font_from_elsewhere(influence, made_run, place):
    answer = influence(
        "view", "made", "--export-svg", "out.svg", "--size", "80x24", "--theme", "light", "--press", "enter"
    )
    assert answer.code == 0, answer.stderr
    svg = (place / "out.svg").read_text()
    assert svg.startswith("<svg")
    assert "@font-face" not in svg
    assert "agent" in svg


def test_without_a_terminal_it_says_what_else_there_is(influence, made_run):
    answer = influence("view", "made")
    assert (answer.code, "needs a terminal" in answer.stderr) == (2, True)


def test_who_has_no_name_on_this_machine_labels_by_number(influence, made_run, monkeypatch):
    for variable in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 987654321)
    assert influence("view", "made", "--export-svg", "out.svg", "--size", "80x24").code == 0
    assert _own_name() == "user-987654321"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--theme", "pink"), "Unknown theme 'pink'"),
        (("nowhere",), "Unknown run 'nowhere'"),
        (("--compare", "made"), "--compare needs two runs"),
        (("--query", "rating>1"), "need one run"),
        (("made", "--export-svg", "x.svg", "--size", "big"), "is not COLUMNSxROWS"),
        (("made", "--web", "--host", "0.0.0.0"), "can be reached from other machines. Add --expose"),
        (("made", "--with", "nonsense"), "Unknown rubric or tag"),
        (("made", "--query", "rating>>", "--export-svg", "x.svg"), "error: --query 'rating>>', column 8: "),
        (("made", "--query", "ratng>1", "--export-svg", "x.svg"), "error: --query 'ratng>1', column 1: "),
        (
            ("made", "--conversation", "999", "--export-svg", "x.svg"),
            "error: There is no conversation 999 in runs/made.",
        ),
    ],
)
def test_mistakes_are_one_line(influence, made_run, arguments, said):
    answer = influence("view", *arguments)
    assert answer.code == 2
    assert said in answer.stderr
    assert answer.stderr.count("\n") <= 3


def test_the_page_runs_the_same_command_without_what_is_about_serving():
    given = ["view", "a", "--web", "--port", "8000", "--host=::1", "--expose", "--theme", "light"]
    assert _without_web(given) == ["view", "a", "--theme", "light"]


def test_labels_are_exported_by_the_command_line(influence, made_run):
    answer = influence("export", "made", "--to", "labels", "--out", "-")
    assert answer.stdout.startswith(
        "episode,environment,scenario,initial_state,sample,iteration,turn,rubric,label,note,flag"
    )


def test_a_simulation_pauses_goes_on_and_stops(place, tiny_folder):
    command = [sys.executable, "-m", "influence_cli", "simulate", "--env", str(tiny_folder), "-m", "scripted:demo"]
    settings = ["-o", "latency=0.02", "--n", "400", "--concurrency", "2", "--out", "made"]
    process = subprocess.Popen(
        [*command, *settings], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=place
    )
    path = place / "made"
    try:
        wait_until(lambda: begun(path) and calls(path) > 0)
        pause_run(path, "ada")
        wait_until(lambda: len(events(path)) == 1)
        before = calls(path)
        time.sleep(1.0)  # long enough for dozens of calls
        assert calls(path) <= before + IN_FLIGHT
        assert (path / PAUSE).read_text().startswith("ada ")
        unpause_run(path)
        wait_until(lambda: calls(path) > before + IN_FLIGHT)
        pause_run(path, "ada")
        wait_until(lambda: len(events(path)) == 3)
        assert stop_run(path) == process.pid
        _, stderr = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 3, stderr
    assert "Paused: no new call is begun." in stderr
    assert "Going on." in stderr
    with RunReader(open_run(path)) as run:
        assert run.state() == "stopped"
    assert events(path)[:3] == ["pause", "unpause", "pause"]
    again = subprocess.run(
        [sys.executable, "-m", "influence_cli", "simulate", "--resume", str(path), "-o", "latency=0"],
        cwd=place, capture_output=True, text=True, timeout=60, check=False, env=os.environ,
    )  # fmt: skip
    assert again.returncode == 0, again.stderr
    assert not (path / PAUSE).exists()


def begun(path) -> bool:
    """Whether the run's database is made: the file is there a moment before its tables are."""
    with contextlib.suppress(InfluenceError, FileNotFoundError), RunReader(open_run(path)):
        return True
    return False


def calls(path) -> int:
    with RunReader(open_run(path)) as run:
        return run.rows("SELECT count(*) FROM call")[0][0]


def events(path) -> list[str]:
    with RunReader(open_run(path)) as run:
        return [row[0] for row in run.rows("SELECT kind FROM event ORDER BY id")]


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_the_web_server_ends_by_a_signal_and_leaves_no_process_behind(made_run, place, ending):
    command = [sys.executable, "-m", "influence_cli", "view", "made", "--web"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=place)
    try:
        line = process.stderr.readline()
        address = re.search(r"http://127\.0\.0\.1:\d+/\?token=\S{40,}", line)
        assert address, line
        pages = asyncio.run(end_with_an_open_page(process, address[0], ending))
        stdout, stderr = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert (stdout, "Traceback" in stderr) == ("", False)
    assert pages
    assert not pages & all_processes().keys()


async def end_with_an_open_page(process, address: str, ending: signal.Signals) -> set[int]:
    """Open the page, wait until the viewer draws, and end the server; return the ids of the processes it had."""
    origin = address.partition("/?")[0]
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as client:
        async with client.get(origin) as answer:
            assert answer.status == 403
        async with client.get(address) as answer:
            assert answer.status == 200
        async with client.ws_connect(f"ws{origin[4:]}/ws", headers={"Origin": origin}) as page, asyncio.timeout(60):
            assert (await page.receive()).type == aiohttp.WSMsgType.BINARY
            pages = children_of(process.pid)
            process.send_signal(ending)
            while not page.closed:
                await page.receive()
    return pages


def all_processes() -> dict[int, int]:
    """Return every process and its parent."""
    told = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    return {int(line.split()[0]): int(line.split()[1]) for line in told.splitlines()}


def children_of(parent: int) -> set[int]:
    return {child for child, its in all_processes().items() if its == parent}
