"""The viewer on a large run: first paint, full-text filter, scrolling, memory. ``nox -s bench -- viewer``.

The run (100,000 conversations of 5 turns unless ``--conversations`` says otherwise) is made through SQL. First paint and
memory are those of the real program in a pseudo-terminal; the rest is measured inside the same application, where the
longest time that the event loop was held up tells whether anything blocked.
"""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import json
import os
import platform
import pty
import select
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
import time
from contextlib import asynccontextmanager
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parent))
from influence_cli.viewer.app import ViewerApp, ViewerOptions
from influence_cli.viewer.widgets.query_bar import QueryBar
from influence_cli.viewer.widgets.virtual_table import VirtualTable
from viewer_data import make_run

SIZE = (140, 45)
BYTE_CODE = Path(tempfile.gettempdir()) / "influence-benchmark-pyc"
QUERIES = ('"just stay home"', 'rating>7 and veto>0.3 "just stay home"', "rating>7", "population:gameable", "night")
LIMITS = {"first_paint_s": 1.0, "filter_s": 0.2, "blocked_s": 0.05, "memory_mb": 250}


def first_paint(run: Path, repeats: int) -> dict:
    """Seconds from starting the program to the first row on the terminal, and the memory it then comes to.

    The first start, which compiles every module, is told apart: an installed program has been compiled.
    """
    seconds, memory = [], []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        process, screen = _start(run)
        seen = b""
        while b"person-" not in seen:
            seen += _read(screen)
            assert time.perf_counter() - started < 60, seen[-500:]
        seconds.append(time.perf_counter() - started)
        for keys in (b"G", b"w", b"/", b'"just stay home"\r', b"x", b"G"):
            os.write(screen, keys)
            until = time.perf_counter() + 1.5
            while time.perf_counter() < until:
                _read(screen, 0.1)
        tree = psutil.Process(process)
        memory.append(max(tree.memory_info().rss, _peak(process)) / 2**20)
        os.write(screen, b"\x11")
        try:
            while os.waitpid(process, os.WNOHANG) == (0, 0):
                _read(screen, 0.1)
        finally:
            os.close(screen)
    uncompiled, *compiled = seconds
    return {"first_paint_s": sorted(compiled), "first_paint_uncompiled_s": uncompiled, "peak_memory_mb": sorted(memory)}


def _start(run: Path) -> tuple[int, int]:
    process, screen = pty.fork()
    if process == 0:
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # pip compiles what it installs
        os.environ.update(TERM="xterm-256color", COLORTERM="truecolor", PYTHONPYCACHEPREFIX=str(BYTE_CODE))
        os.execv(sys.executable, [sys.executable, "-m", "influence_cli", "view", str(run)])
    fcntl.ioctl(screen, termios.TIOCSWINSZ, struct.pack("HHHH", SIZE[1], SIZE[0], 0, 0))
    return process, screen


def _read(screen: int, wait: float = 1.0) -> bytes:
    ready, _, _ = select.select([screen], [], [], wait)
    try:
        return os.read(screen, 65536) if ready else b""
    except OSError:
        return b""


def _peak(process: int) -> int:
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    return 0


class Ticker:
    """Notes the longest time that the event loop was not free."""

    def __init__(self) -> None:
        self.longest = 0.0
        self._task: asyncio.Task | None = None

    def start(self) -> None:
        self.longest = 0.0
        self._task = asyncio.create_task(self._tick())

    async def stop(self) -> float:
        await asyncio.sleep(0.02)
        assert self._task is not None
        self._task.cancel()
        return self.longest

    async def _tick(self) -> None:
        while True:
            before = time.perf_counter()
            await asyncio.sleep(0.002)
            self.longest = max(self.longest, time.perf_counter() - before - 0.002)


@asynccontextmanager
async def viewer(run: Path):
    app = ViewerApp(ViewerOptions(open=run, settings=run / "settings"))
    async with app.run_test(size=SIZE) as pilot:
        table = app.screen.query_one(VirtualTable)
        while table.row(0) is None or not app.screen.source.searchable:
            await asyncio.sleep(0.01)
        await asyncio.sleep(2.0)
        yield app, pilot, table


async def filtered(app, table, query: str) -> float:
    """Seconds from asking to the first rows of the answer."""
    screen = app.screen
    await asyncio.sleep(2.5)  # the facets of the query before
    generation = table.generation
    started = time.perf_counter()
    screen.query_one(QueryBar).set_query(query)
    while table.generation == generation or (table.row_count and table.row(0) is None):
        await asyncio.sleep(0.001)
    return time.perf_counter() - started


def processor_seconds(run: Path) -> dict:
    """Return what finding the conversations of a query takes of a processor, the least of five: also on a busy machine."""
    from influence_cli.store.reader import RunReader
    from influence_cli.store.run_directory import open_run
    from influence_cli.store.search import INDEX
    from influence_cli.store.trajectory_table import Order, TrajectoryTable

    found: dict[str, float] = {}
    with RunReader(open_run(run)) as reader:
        table = TrajectoryTable(reader, run / INDEX)
        for query in (*QUERIES, "-night", "nig*"):
            times = []
            for _ in range(5):
                started = time.thread_time()
                table.numbers(table.read(query), Order())
                times.append(time.thread_time() - started)
            found[query] = min(times)
    return found


async def inside(run: Path) -> dict:
    figures: dict = {}
    async with viewer(run) as (app, pilot, table):
        ticker = Ticker()
        filters = {}
        for query in QUERIES:
            filters[query] = {"seconds": await filtered(app, table, query), "found": table.row_count}
        figures["filter"] = filters
        await filtered(app, table, "")
        for name, key, times in (
            ("line by line", "j", 400),
            ("page by page", "pagedown", 400),
            ("to the ends", "G", 1),
            ("back", "g", 1),
        ):
            ticker.start()
            started = time.perf_counter()
            for _ in range(times):
                await pilot.press(key)
            seconds = time.perf_counter() - started
            figures.setdefault("scrolling", {})[name] = {
                "keys": times,
                "seconds": seconds,
                "blocked_s": await ticker.stop(),
            }
        ticker.start()
        for offset in range(0, 90_000, 1_111):
            table.scroll_to(y=offset, animate=False, force=True)
            await asyncio.sleep(0.005)
        figures["scrolling"]["by the bar, across everything"] = {"blocked_s": await ticker.stop()}
        ticker.start()
        await pilot.press("w")
        await asyncio.sleep(3.0)
        figures["sorting_blocked_s"] = await ticker.stop()
    return figures


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--conversations", type=int, default=100_000)
    parser.add_argument("--run", type=Path, help="A run that was made before.")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    try:
        run = arguments.run or folder / "large"
        started = time.perf_counter()
        if arguments.run is None:
            make_run(run, arguments.conversations)
        made = time.perf_counter() - started
        from influence_cli.store.reader import RunReader
        from influence_cli.store.run_directory import open_run
        from influence_cli.store.search import INDEX
        from influence_cli.store.word_index import open_words, take_in

        with RunReader(open_run(run)) as reader:
            messages = reader.rows("SELECT count(*) FROM message")[0][0]
            started = time.perf_counter()
            index = open_words(run / INDEX, ":memory:")
            for _ in take_in(index, reader):
                pass
            index.close()
        figures = {
            "commit": subprocess.run(
                ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False
            ).stdout.strip(),
            "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
            "conversations": arguments.conversations,
            "messages": messages,
            "database_mb": (run / "run.db").stat().st_size / 2**20,
            "made_s": made,
            "first_index_s": time.perf_counter() - started,
            "limits": LIMITS,
            "index_mb": (run / INDEX).stat().st_size / 2**20,
            "query_processor_s": processor_seconds(run),
            **first_paint(run, arguments.repeats),
            **asyncio.run(inside(run)),
        }
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    text = json.dumps(figures, indent=2)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
