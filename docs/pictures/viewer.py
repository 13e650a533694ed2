"""Draw the pictures of ``docs/viewer.md``: ``python docs/pictures/viewer.py RUN [RUN]``; PNG too where Chromium is.

The first run is shown in most of them; the second, where it is given, in the comparison of tool calls.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from influence_cli.viewer.app import ViewerOptions
from influence_cli.viewer.picture import save_picture
from influence_cli.viewer.themes import NAMES

HERE = Path(__file__).parent
WIDE, NARROW = (140, 40), (100, 30)
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--hide-scrollbars",
)  # fmt: skip


def main() -> None:
    """Write ``viewer-*.svg`` beside this file."""
    first = Path(sys.argv[1])
    second = Path(sys.argv[2]) if len(sys.argv) > 2 else first
    pictures = {
        "runs": (ViewerOptions(folders=(first.parent,)), NARROW, ()),
        "run": (ViewerOptions(open=first, query="rating>8"), WIDE, ("w",)),
        "conversation": (ViewerOptions(open=first), WIDE, ("w", "enter", "w")),
        "charts": (ViewerOptions(open=first, theme=NAMES["light"]), NARROW, ("i",)),
        "label": (ViewerOptions(open=first, theme=NAMES["contrast"], blind=True), NARROW, ("enter", "L", "f")),
        "tools": (ViewerOptions(open=second, theme=NAMES["light"]), WIDE, ("w", "enter", "w", "z")),
    }
    for name, (options, size, keys) in pictures.items():
        out = HERE / f"viewer-{name}.svg"
        save_picture(options, out, size=size, keys=keys)
        as_png(out)


def as_png(svg: Path) -> None:
    """Write the picture as PNG beside it, if Chromium is there."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        return
    box = svg.read_text(encoding="utf-8").split('viewBox="0 0 ', 1)[1].split('"', 1)[0].split()
    window = ",".join(str(round(float(side))) for side in box)
    with tempfile.TemporaryDirectory() as profile:
        target = svg.with_suffix(".png")
        command = [chromium, *FLAGS, f"--user-data-dir={profile}", f"--window-size={window}", f"--screenshot={target}"]
        subprocess.run([*command, svg.resolve().as_uri()], check=True, capture_output=True)  # noqa: S603 - our own pictures


if __name__ == "__main__":
    main()
