"""Work beside a screen's event loop."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from textual.dom import DOMNode
from textual.worker import WorkType

Work = Callable[..., Coroutine[Any, Any, None]]


def run_beside(
    node: DOMNode, work: Work, *given: Any, group: str = "default", exclusive: bool = False, **named: Any
) -> None:
    """Run ``work`` with what is ``given``; ``exclusive`` ends what runs in the same group.

    The coroutine is made when it begins: one that is made at once and ended before it began would be told of as never
    awaited.
    """
    begin: WorkType[None] = partial(work, *given, **named)
    node.run_worker(begin, group=group, exclusive=exclusive)
