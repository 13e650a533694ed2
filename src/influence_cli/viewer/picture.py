"""A screen as SVG, for papers and bug reports: the same application, without a terminal."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from textual.message_pump import MessagePump

from influence_cli.errors import InfluenceError
from influence_cli.store.exporters import whole_file
from influence_cli.viewer.app import ViewerApp, ViewerOptions

_FONT_FACE = re.compile(r"@font-face\s*{.*?}", re.DOTALL)
_PATIENCE = 60.0
_WAIT = 0.005
_CALM = 2


def save_picture(options: ViewerOptions, out: Path, *, size: tuple[int, int], keys: Sequence[str] = ()) -> None:
    """Write the screen that ``keys`` lead to into ``out``; the picture needs no font from elsewhere."""
    svg = asyncio.run(_picture(options, size, keys))
    with whole_file(out) as temporary:
        temporary.write_text(svg, encoding="utf-8")


async def _picture(options: ViewerOptions, size: tuple[int, int], keys: Sequence[str]) -> str:
    app = ViewerApp(options)
    async with app.run_test(size=size) as pilot:
        await settled(app)
        for key in keys:
            await pilot.press(key)
            await settled(app)
        return plain_svg(app.export_screenshot(title="influence"))


async def settled(app: ViewerApp) -> None:
    """Wait until nothing is under way, and have everything drawn once more; InfluenceError after a minute."""
    try:
        async with asyncio.timeout(_PATIENCE):
            await _rest(app)
            for screen in app.screen_stack:
                for widget in screen.walk_children(with_self=True):
                    widget.refresh(layout=True)
            await _rest(app)
    except TimeoutError:
        raise InfluenceError(f"The screen did not come to rest within {_PATIENCE:.0f} seconds.") from None


async def _rest(app: ViewerApp) -> None:
    """Wait until no worker, no message and no animation is left.

    What follows from a handler may be found only after another round, so that the application has to be calm twice.
    """
    calm = 0
    while calm < _CALM and app.is_running:
        if _at_work(app):
            calm = 0
            await asyncio.sleep(_WAIT)
        else:
            await _round(app)
            calm = 0 if _at_work(app) else calm + 1


def _at_work(app: ViewerApp) -> bool:
    working = any(not worker.is_finished for worker in app.workers)
    return working or any(pump.message_queue_size for pump in _pumps(app))


def _pumps(app: ViewerApp) -> list[MessagePump]:
    return [app, *(widget for screen in app.screen_stack for widget in screen.walk_children(with_self=True))]


async def _round(app: ViewerApp) -> None:
    """Wait until everything on the screens has answered once, what moves stands still, and the screen is drawn."""
    await _answers([(pump, pump.call_later) for pump in _pumps(app)])
    await app.animator.wait_until_complete()
    await _answers([(app.screen, app.screen.call_after_refresh)])


async def _answers(asked: Sequence[tuple[MessagePump, Callable[[Callable[[], object]], bool]]]) -> None:
    """Wait for an answer of each; a widget that is taken away meanwhile owes none."""
    told = [(pump, asyncio.Event(), ask) for pump, ask in asked]
    waiting = [(pump, answered) for pump, answered, ask in told if ask(answered.set)]
    while waiting:
        await asyncio.sleep(_WAIT)
        waiting = [(pump, answered) for pump, answered in waiting if pump.is_running and not answered.is_set()]


def plain_svg(svg: str) -> str:
    """Return a picture without fonts from the network, and with names that do not change from one time to the next."""
    svg = _FONT_FACE.sub("", svg).replace("Fira Code", "DejaVu Sans Mono")
    unique = re.search(r"terminal-(\d+)-", svg)
    return svg.replace(f"terminal-{unique[1]}-", "terminal-") if unique else svg
