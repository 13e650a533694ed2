"""The thread that owns a model.

Concept: callers hand in a function that makes a sequence (rendering and tokenising happen on the thread, so that the
tokenizer has one user) and get a future. Invariant: every future is resolved, whatever happens; only this thread
touches model, tokenizer and cache.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Protocol

import torch

from influence_cli.api import CallFailedError
from influence_transformers.engine.sequences import ChoiceResult, Sequence, TextResult

_log = logging.getLogger(__name__)

Result = TextResult | ChoiceResult
Prepare = Callable[[Future[Result]], Sequence]
"""Makes the sequence that resolves a future; may raise ``CallFailedError`` or ``InfluenceError``."""


class Steps(Protocol):
    """What the thread drives: the scheduler, or the plain engine for models that it cannot serve."""

    @property
    def busy(self) -> bool:
        """Whether there is anything to do."""
        ...

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence."""
        ...

    def step(self) -> None:
        """Do a bit of work."""
        ...

    def fail(self, error: BaseException) -> None:
        """Give up everything."""
        ...

    def lighten(self) -> bool:
        """Do less at once, after memory ran out; False if it cannot be less."""
        ...


class Worker:
    """Runs steps on a thread of its own, started by the first request."""

    def __init__(self, steps: Steps, name: str) -> None:
        self._steps = steps
        self._inbox: queue.SimpleQueue[tuple[Prepare, Future[Result]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=f"influence-{name}", daemon=True)
        self._lock = threading.Lock()
        self._closed = False

    def submit(self, prepare: Prepare) -> Future[Result]:
        """Return the future of a request; cancelling it abandons the request."""
        future: Future[Result] = Future()
        with self._lock:
            if self._closed:
                future.set_exception(CallFailedError("internal", "The model has been closed.", attempts=0))
                return future
            self._inbox.put((prepare, future))
            if not self._thread.is_alive():
                self._thread.start()
        return future

    def close(self) -> None:
        """Fail what is in flight and end the thread."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._inbox.put(None)
            started = self._thread.is_alive()
        if started and threading.current_thread() is not self._thread:
            self._thread.join()

    def _run(self) -> None:
        while self._drain(wait=not self._steps.busy):
            if not self._steps.busy:
                continue
            try:
                self._steps.step()
            except torch.OutOfMemoryError:
                self._out_of_memory()
            except Exception as error:  # noqa: BLE001 - whatever a model raises fails its requests, not the thread
                _log.exception("A step of the local model failed.")
                self._steps.fail(
                    CallFailedError("internal", f"The local model failed: {type(error).__name__}: {error}")
                )
        self._steps.fail(CallFailedError("internal", "The model has been closed."))

    def _drain(self, *, wait: bool) -> bool:
        """Take over what was submitted, waiting for something if asked to; False when closed."""
        while wait or not self._inbox.empty():
            item = self._inbox.get()
            if item is None:
                self._refuse_rest()
                return False
            prepare, future = item
            wait = False
            if future.cancelled():
                continue
            try:
                self._steps.add(prepare(future))
            except Exception as error:  # noqa: BLE001 - one request that cannot be prepared fails alone
                _resolve_error(future, error)
        return True

    def _refuse_rest(self) -> None:
        while not self._inbox.empty():
            item = self._inbox.get()
            if item is not None:
                _resolve_error(item[1], CallFailedError("internal", "The model has been closed.", attempts=0))

    def _out_of_memory(self) -> None:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if self._steps.lighten():
            _log.warning("The device ran out of memory; the model now computes half as much at once.")
        else:
            self._steps.fail(CallFailedError("internal", "The device has too little memory for this model and prompt."))


def _resolve_error(future: Future[Result], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
