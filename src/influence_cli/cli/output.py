"""The one place that writes: data to stdout, talk to stderr.

Invariant: nothing but data reaches stdout; text of models and files goes through :func:`plain` first.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, NoReturn

from influence_cli.credentials import without_secrets
from influence_cli.sanitize import visible

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from influence_cli.listening import Advance

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


def data_width() -> int:
    """Return how many characters a line of stdout holds."""
    return data_console().width


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
    """Show data for people on stdout; where that is no terminal, no line is filled up with spaces."""
    console = data_console()
    if console.is_terminal:
        console.print(renderable)
        return
    with console.capture() as shown:
        console.print(renderable)
    lines = shown.get().removesuffix("\n").split("\n")
    sys.stdout.write("".join(f"{line.rstrip(' ')}\n" for line in lines))
    sys.stdout.flush()


def emit_text(text: str) -> None:
    """Write text of several lines to stdout as it is, control characters made visible."""
    sys.stdout.write(visible(text.rstrip("\n")) + "\n")


def emit_json(document: Any) -> None:
    """Write one JSON document to stdout, in UTF-8 wherever it goes; pydantic models are allowed in it."""
    import json

    import orjson

    try:
        text = orjson.dumps(document, default=_jsonable, option=orjson.OPT_INDENT_2)
    except TypeError:  # names of files may be no UTF-8; plain JSON can escape them
        text = json.dumps(document, default=_jsonable, indent=2).encode()
    sys.stdout.flush()
    sys.stdout.buffer.write(text + b"\n")
    sys.stdout.buffer.flush()


def _jsonable(value: Any) -> Any:
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    return str(value)


def say(text: str) -> None:
    """Say something on stderr, unless quiet."""
    if not _quiet:
        warn(text)


def warn(text: str) -> None:
    """Say something on stderr, quiet or not; what seems to be a key is blotted out."""
    _talk(without_secrets(text))


def tell_address(text: str) -> None:
    """Say on stderr an address that holds a token, which whoever reads it is meant to have."""
    _talk(text)


def _talk(text: str) -> None:
    talk_console().print(visible(text), soft_wrap=True)


def end_at_once(code: int) -> NoReturn:
    """End the process with ``code``, whatever its threads still wait for; what was written is written out."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


@contextmanager
def progress_bar() -> Iterator[Advance]:
    """Yield a function of what is being done and how far, from 0 to 1; its first call brings a bar up on stderr.

    Where stderr is no terminal, each new step is said once, as a line, without its details.
    """
    with ExitStack() as shown:
        yield _bar(shown) if talk_console().is_terminal and not _quiet else _lines()


def _bar(shown: ExitStack) -> Advance:
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn())
    bar = Progress(*columns, console=talk_console(), transient=True)

    def advance(step: str, share: float, detail: str = "", /) -> None:
        if not bar.task_ids:
            shown.enter_context(bar)
            bar.add_task("", total=1.0)
        bar.update(bar.task_ids[0], description=plain(f"{step}: {detail}" if detail else step), completed=share)

    return advance


def _lines() -> Advance:
    said: set[str] = set()

    def advance(step: str, _share: float, _detail: str = "", /) -> None:
        if step not in said:
            said.add(step)
            say(f"{step} ...")

    return advance
