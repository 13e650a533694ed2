"""What a person sees of a sitting: talk, and a line, a bar or a live display of how far it is, on stderr."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from influence_cli.cli import output

if TYPE_CHECKING:
    from influence_cli.listening import Advance, Scored
    from influence_cli.simulation.tally import Tally

_REFRESH = 0.5


class Talk:
    """Tells whoever watches the command line; see :class:`influence_cli.listening.Listener`."""

    def say(self, text: str) -> None:
        """Say it, unless quiet."""
        output.say(text)

    def warn(self, text: str) -> None:
        """Say it, quiet or not."""
        output.warn(text)

    def progress(self) -> AbstractContextManager[Advance]:
        """Show a bar, or say each step once."""
        return output.progress_bar()

    async def follow(self, tally: Tally, notes: Mapping[str, str]) -> None:
        """Show how far a simulation is until cancelled."""
        import asyncio

        from influence_cli.cli.progress import show_progress

        if output.is_quiet():
            await asyncio.Event().wait()
        await show_progress(tally, output.talk_console(), notes)

    async def count(self, look: Callable[[], Scored]) -> None:
        """Show how many scores there are until cancelled; on a terminal, where a bar can."""
        import asyncio

        with output.progress_bar() as advance:
            while True:
                if output.talk_console().is_terminal:
                    far = look()
                    advance(f"{far.done:,} scores asked for by {far.shards} shards", far.ended / far.shards)
                await asyncio.sleep(_REFRESH)

    def ended(self, tally: Tally) -> None:
        """Say what a simulation came to, where a live display did not."""
        from influence_cli.sittings.lines import line

        if not output.is_quiet() and not output.talk_console().is_terminal:
            output.say(line(tally))
