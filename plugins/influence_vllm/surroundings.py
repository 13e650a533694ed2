"""What vLLM's processes find around them when they begin: variables, and where they may talk.

Concept: they inherit both from this process, so it changes them for as long as they are begun.

Invariant: afterwards this process has its own again, and what the user set in the environment was never overruled by a
default of ours.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

_VLLM_ENVIRONMENT = {
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",
}


@contextmanager
def surroundings(variables: Mapping[str, str]) -> Iterator[None]:
    """Have processes that begin inside the block find ``variables``, our defaults for vLLM, and a stdout that is stderr."""
    with _environment(variables, _VLLM_ENVIRONMENT), _talk_on_stderr():
        yield


@contextmanager
def _talk_on_stderr() -> Iterator[None]:
    """Have processes that begin inside the block write to stderr what they would write to stdout, which is for data."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


@contextmanager
def _environment(variables: Mapping[str, str], defaults: Mapping[str, str]) -> Iterator[None]:
    """Have ``variables`` in the environment inside the block, and those of ``defaults`` that are not set."""
    wanted = {name: value for name, value in defaults.items() if name not in os.environ} | dict(variables)
    before = {name: os.environ.get(name) for name in wanted}
    os.environ |= wanted
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
