"""``influence``, and ``python -m influence_cli``."""

from __future__ import annotations

import io
import sys

STOPPED_BEFORE_THE_START = 3
"""As errors.EXIT_STOPPED, which is not imported yet."""


def main() -> None:
    """Run the command line; the process ends with its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that cannot show a character shows its number
    try:
        from influence_cli.cli.app import build_app

        app = build_app()
    except KeyboardInterrupt:
        sys.exit(STOPPED_BEFORE_THE_START)
    app()


if __name__ == "__main__":
    main()
