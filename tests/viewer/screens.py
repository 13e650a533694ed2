"""Comparing screens with those that are kept: text a line a row, then which style stands where.

``pytest tests/viewer --update-screens`` writes them anew; look at the difference before you commit it.
"""

from __future__ import annotations

import difflib
from pathlib import Path

import pytest
from textual._context import visible_screen_stack

FOLDER = Path(__file__).parent / "screens"


def capture(app) -> str:
    """Return the screen in front, colours included, in a form that a person can compare."""
    visible_screen_stack.set(app._background_screens)  # what stands behind a dialogue belongs to the picture
    strips = app.screen._compositor.render_strips()
    names: dict[str, str] = {}
    text: list[str] = []
    styled: list[str] = []
    for strip in strips:
        row, runs, column = "", [], 0
        for segment in strip.simplify():
            style = str(segment.style.without_color) + f" {_colour(segment.style)}" if segment.style else ""
            name = names.setdefault(style, f"s{len(names)}")
            runs.append(f"{name}*{segment.cell_length}")
            row += segment.text
            column += segment.cell_length
        text.append(row.rstrip())
        styled.append(" ".join(runs))
    legend = [f"{name} = {style}" for style, name in names.items()]
    return "\n".join([*text, "---", *styled, "---", *legend]) + "\n"


def _colour(style) -> str:
    parts = [each.name if each else "-" for each in (style.color, style.bgcolor)]
    return " on ".join(parts)


def compare(app, name: str, *, update: bool) -> None:
    """Fail with the difference if the screen is not the one that is kept as ``name``; or keep it."""
    seen = capture(app)
    path = FOLDER / f"{name}.txt"
    if update:
        FOLDER.mkdir(exist_ok=True)
        path.write_text(seen, encoding="utf-8")
        return
    if not path.is_file():
        pytest.fail(f"{path} is missing: run with --update-screens and look at it", pytrace=False)
    kept = path.read_text(encoding="utf-8")
    if seen != kept:
        lines = difflib.unified_diff(kept.splitlines(), seen.splitlines(), f"kept/{name}", f"seen/{name}", lineterm="")
        pytest.fail("\n".join(["The screen is another one than the one that is kept:", *lines]), pytrace=False)
