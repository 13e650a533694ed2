"""Noticing that a run was written to, for the price of one pragma a second."""

from __future__ import annotations

from influence_cli.store.steering import is_paused
from influence_cli.store.trajectory_table import TrajectoryTable
from influence_cli.viewer.events import RunChanged
from influence_cli.viewer.source import RunSource


class Watch:
    """Remembers what a run was like when it was last looked at."""

    def __init__(self, source: RunSource) -> None:
        self._source = source
        self._version: int | None = None
        self._state = ""

    async def look(self) -> RunChanged | None:
        """Return what changed since the last look; None if nothing did."""
        version, state = await self._source.quick.ask(_seen)
        if state == "running" and is_paused(self._source.path):
            state = "paused"
        grew = self._version is not None and version != self._version
        changed = grew or state != self._state
        self._version, self._state = version, state
        return RunChanged(state, grew) if changed else None


def _seen(table: TrajectoryTable) -> tuple[int, str]:
    version: int = table.run.rows("PRAGMA main.data_version")[0][0]
    return version, table.run.state()
