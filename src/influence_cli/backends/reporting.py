"""Telling how far a download or conversion of a model is.

Concept: whoever draws progress passes a callback for the time of a ``with`` block; without one, a step is said once as a
line of the log. The callback gets what is being done and how far, from 0 to 1, on the caller's thread.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Progress = Callable[[str, float], None]

_log = logging.getLogger(__name__)
_current: ContextVar[Progress | None] = ContextVar("influence_progress", default=None)
_said: ContextVar[str] = ContextVar("influence_said", default="")


@contextmanager
def reporting_to(callback: Progress) -> Iterator[None]:
    """Send progress to ``callback`` inside the block."""
    token = _current.set(callback)
    try:
        yield
    finally:
        _current.reset(token)


def report_progress(what: str, fraction: float) -> None:
    """Tell that ``what`` has come so far."""
    callback = _current.get()
    if callback is not None:
        callback(what, fraction)
    elif _said.get() != what:
        _said.set(what)
        _log.warning("%s ...", what)
