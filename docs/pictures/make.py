"""Draw the README's picture from a real run: ``python docs/pictures/make.py RUN``."""

import re
import sys
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.text import Text

from influence_cli.cli.runs import _parts
from influence_cli.store.queries import run_figures
from influence_cli.store.reader import RunReader
from influence_cli.store.run_directory import open_run

WIDTH = 92


def main() -> None:
    """Write ``simulate.svg`` beside this file."""
    console = Console(record=True, width=WIDTH, file=Path("/dev/null").open("w"), markup=False, highlight=False)  # noqa: SIM115
    with RunReader(open_run(Path(sys.argv[1]))) as run:
        figures = run_figures(run)
    console.print(Text("$ influence runs show latest", style="bold"))
    console.print()
    for part in _parts(figures):
        console.print(part)
    plain = re.sub(r"@font-face {{.*?}}", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)  # no font from elsewhere
    console.save_svg(str(Path(__file__).with_name("simulate.svg")), title="influence", code_format=plain)


if __name__ == "__main__":
    main()
