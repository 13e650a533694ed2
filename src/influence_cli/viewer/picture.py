"""A screen as SVG, for papers and bug reports: the same application, without a terminal."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from pathlib import Path

from influence_cli.store.exporters import whole_file
from influence_cli.viewer.app import ViewerApp, ViewerOptions

_FONT_FACE = re.compile(r"@font-face\s*{.*?}", re.DOTALL)
_PATIENCE = 400
_WAIT = 0.015
_QUIET = 4


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
    """Wait until no worker is at work and nothing is to be drawn."""
    quiet = 0
    for _ in range(_PATIENCE):
        await asyncio.sleep(_WAIT)
        busy = any(not worker.is_finished and worker.group != "index" for worker in app.workers)
        quiet = 0 if busy else quiet + 1
        if quiet >= _QUIET:
            return


def plain_svg(svg: str) -> str:
    """Return a picture without fonts from the network, and with names that do not change from one time to the next."""
    svg = _FONT_FACE.sub("", svg).replace("Fira Code", "DejaVu Sans Mono")
    unique = re.search(r"terminal-(\d+)-", svg)
    return svg.replace(f"terminal-{unique[1]}-", "terminal-") if unique else svg
