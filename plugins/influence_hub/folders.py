"""Folders that appear whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from influence_cli.api import InfluenceError


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``out`` that takes its place when the block succeeds; InfluenceError otherwise.

    What stands at ``out`` already is never replaced, but for an empty folder.
    """
    if str(out) == "-":
        raise InfluenceError("A folder cannot be written to stdout.", hint="Name one with --out.")
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise InfluenceError(f"{out} is there already.", hint="Name another folder with --out, or remove it.")
    temporary = out.with_name(f".influence-{os.getpid()}-{out.name}")
    try:
        temporary.mkdir()
        yield temporary
        if out.is_dir():
            out.rmdir()
        temporary.rename(out)
    except OSError as error:
        raise InfluenceError(f"{out}: {error.strerror or error}.") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
