"""The runs under a folder."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import Footer, Static

from influence_cli.errors import InfluenceError
from influence_cli.store.steering import is_paused, pause_run, stop_run, unpause_run
from influence_cli.viewer import formats
from influence_cli.viewer.cells import shown
from influence_cli.viewer.events import RunsFound, TroubleMet
from influence_cli.viewer.run_list import RunLine, RunList
from influence_cli.viewer.screens.listing import ViewerScreen
from influence_cli.viewer.widgets.title_bar import TitleBar, state_sign
from influence_cli.viewer.widgets.virtual_table import Column, VirtualTable
from influence_cli.viewer.workers import run_beside

_SECONDS = 2.0
_COLUMNS = (
    Column("name", "run", 26, end=True),
    Column("state", "state", 10),
    Column("type", "type", 9),
    Column("conversations", "done/all", 15, right=True),
    Column("failed", "failed", 7, right=True),
    Column("rating", "rating", 7, right=True),
    Column("veto", "harm", 7, right=True),
    Column("age", "age", 7, right=True),
    Column("environments", "environments", 30),
)


class RunsScreen(ViewerScreen):
    """All runs: type, state, counts, mean rating, harm, age. Read again every two seconds where they changed."""

    HELP_TITLE = "Runs"
    DEFAULT_CSS = """
    RunsScreen #problem { height: auto; max-height: 4; color: $warning; background: $surface; padding: 0 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("c", "compare", "Compare", show=True),
        Binding("P", "pause", "Pause/go on", show=True),
        Binding("S", "stop", "Stop", show=False),
        Binding("r", "refresh_runs", "Read again", show=False),
    ]

    def __init__(self, runs: RunList) -> None:
        super().__init__()
        self.list = runs
        self.lines: list[RunLine] = []
        self.marked: RunLine | None = None

    def compose(self) -> ComposeResult:
        """Return title, table, problem and keys."""
        yield TitleBar()
        yield VirtualTable(empty="No run here. Make one: influence simulate --env therapy --n 8", id="runs")
        yield Static(id="problem", markup=False)
        yield Footer(compact=True, show_command_palette=False)

    def on_mount(self) -> None:
        """Begin to read."""
        folders = ", ".join(str(folder) for folder in self.list.folders)
        bar = self.query_one(TitleBar)
        bar.text = f"influence \u2022 runs{f' in {folders}' if folders else ''}"
        self.query_one("#problem").display = False
        self.query_one(VirtualTable).set_columns(_COLUMNS)
        self.action_refresh_runs()
        self.set_interval(_SECONDS, self.action_refresh_runs)

    def action_refresh_runs(self) -> None:
        """Read the list again."""
        if self.is_current or not self.lines:
            run_beside(self, self._scan, group="scan", exclusive=True)

    async def _scan(self) -> None:
        self.post_message(RunsFound(await asyncio.to_thread(self.list.scan)))

    def on_runs_found(self, message: RunsFound) -> None:
        """Show the list; the cursor stays on its run."""
        table = self.query_one(VirtualTable)
        before = self.current.path if self.current else None
        changed = [line.path for line in self.lines] != [line.path for line in message.runs]
        self.lines = message.runs
        table.renew(len(self.lines))
        if changed and before is not None:
            table.cursor = next((i for i, line in enumerate(self.lines) if line.path == before), 0)
        running = sum(line.state in ("running", "paused") for line in self.lines)
        count = f"{len(self.lines)} run{'s' if len(self.lines) != 1 else ''}"
        self.query_one(TitleBar).note = count + (f", {running} running" if running else "")
        self._show_problem()

    def on_virtual_table_rows_wanted(self, message: VirtualTable.RowsWanted) -> None:
        """Hand out rows."""
        wanted = self.lines[message.first : message.first + message.count]
        message.table.put(message.first, [_cells(line) for line in wanted], message.generation)

    def on_virtual_table_moved(self, _message: VirtualTable.Moved) -> None:
        """Tell what is wrong with the run under the cursor."""
        self._show_problem()

    def _show_problem(self) -> None:
        box = self.query_one("#problem", Static)
        problem = self.current.problem if self.current else None
        box.display = bool(problem)
        box.update(shown(problem or ""))

    @property
    def current(self) -> RunLine | None:
        """The run under the cursor."""
        cursor = self.query_one(VirtualTable).cursor
        return self.lines[cursor] if cursor < len(self.lines) else None

    def on_virtual_table_opened(self, _message: VirtualTable.Opened) -> None:
        """Open the run."""
        line = self.current
        if line is None:
            return
        if line.problem is not None:
            self.tell(line.problem, severe=True)
        elif line.conversations == 0 and line.state == "empty":
            again = f"influence {line.command} --resume {line.path}"
            self.tell(f"{line.name} holds no conversation yet. Take it up: {again}")
        else:
            self.viewer.open_run(line.path)

    def action_compare(self) -> None:
        """Mark a run; on the second one, compare both; on the same one again, its iterations."""
        line = self.current
        if line is None or line.problem is not None:
            return
        if self.marked is None:
            self.marked = line
            self.tell(f"{line.name} is marked. Go to another run and press c; here again: its iterations.")
            return
        first, self.marked = self.marked, None
        self.viewer.compare(first.path, line.path)

    def action_pause(self) -> None:
        """Ask the run under the cursor to pause, or to go on."""
        self._control(toggle_pause)

    def action_stop(self) -> None:
        """Ask the run under the cursor to stop, after a question."""
        line = self.current
        if line is not None:
            self.viewer.ask(
                f"Stop {line.name}? What is in flight is stored; it can be taken up again.",
                lambda: self._control(lambda path, _author: f"Process {stop_run(path)} was asked to stop."),
            )

    def _control(self, act: Callable[[Path, str], str]) -> None:
        line = self.current
        if line is None:
            return
        try:
            self.tell(act(line.path, self.viewer.author))
        except InfluenceError as error:
            self.post_message(TroubleMet(str(error)))
        self.action_refresh_runs()


def toggle_pause(path: Path, author: str) -> str:
    """Ask the run in ``path`` to pause, or to go on; return what to tell."""
    if is_paused(path):
        unpause_run(path)
        return "It goes on."
    pause_run(path, author)
    return "It pauses: calls in flight are finished, no new one is begun. P again lets it go on."


def _cells(line: RunLine) -> tuple[str, ...]:
    counts = "" if line.conversations is None else f"{line.complete:,}/{line.conversations:,}"
    return (
        shown(line.name, newlines=False),
        state_sign(line.state),
        line.command,
        counts or formats.NONE,
        f"{line.failed:,}" if line.failed else formats.NONE,
        formats.number(line.rating),
        formats.number(line.veto, 3),
        formats.age(line.created) if line.created else formats.NONE,
        shown(", ".join(Path(name).name for name in line.environments), newlines=False),
    )
