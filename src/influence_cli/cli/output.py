"""The one place that writes: data to stdout, talk to stderr.

Invariant: nothing but data reaches stdout; text of models and files goes through :func:`plain` first.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

from influence_cli.sanitize import visible

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

_PIPED_WIDTH = 100
_quiet = False


def set_quiet(quiet: bool) -> None:
    """Silence :func:`say`; warnings and errors still show."""
    global _quiet  # noqa: PLW0603 - one process has one command line
    _quiet = quiet


def is_quiet() -> bool:
    """Return whether talk is silenced."""
    return _quiet


def data_console() -> Console:
    """Return the console of stdout."""
    from rich.console import Console

    class DataConsole(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError  # rich would end the process by a code of its own

    console = DataConsole(file=sys.stdout, highlight=False, markup=False, emoji=False, soft_wrap=False)
    if not console.is_terminal:
        console.width = max(console.width, _PIPED_WIDTH)
    return console


def talk_console() -> Console:
    """Return the console of stderr."""
    return _talk_console(id(sys.stderr))


@cache
def _talk_console(_stream: int) -> Console:
    from rich.console import Console

    return Console(file=sys.stderr, highlight=False, markup=False, emoji=False)


def plain(text: object) -> str:
    """Return ``text`` as one harmless line for a table or a sentence."""
    return visible(str(text), newlines=False)


def emit(renderable: RenderableType) -> None:
    """Show data for people on stdout."""
    data_console().print(renderable)


def emit_json(document: Any) -> None:
    """Write one JSON document to stdout; pydantic models are allowed in it."""
    import orjson

    sys.stdout.write(orjson.dumps(document, default=_jsonable, option=orjson.OPT_INDENT_2).decode() + "\n")


def _jsonable(value: Any) -> Any:
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    return str(value)


def say(text: str) -> None:
    """Say something on stderr, unless quiet."""
    if not _quiet:
        warn(text)


def warn(text: str) -> None:
    """Say something on stderr, quiet or not."""
    talk_console().print(visible(text), soft_wrap=True)


@contextmanager
def progress_bar(title: str) -> Iterator[Callable[[str, float], None]]:
    """Show a bar on stderr; the block gets a function of what is being done and how far, from 0 to 1."""
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    if _quiet:
        yield lambda _step, _share: None
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn())
    with Progress(*columns, console=talk_console(), transient=True) as bar:
        task = bar.add_task(plain(title), total=1.0)
        yield lambda step, share: bar.update(task, description=plain(f"{title}: {step}"), completed=share)
