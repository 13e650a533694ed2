"""``influence``, and ``python -m influence_cli``."""

from __future__ import annotations


def main() -> None:
    """Run the command line; the process ends with its exit code."""
    from influence_cli.cli.app import build_app

    build_app()()


if __name__ == "__main__":
    main()
