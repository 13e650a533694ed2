"""Why training failed, told in one line.

Concept: whatever ends a training process is sorted into few kinds, since the parent acts on two of them (less at once
after memory ran out, nothing of the kind after a mistake) and a person on all.
"""

from __future__ import annotations

import errno
import re
import resource
import sys

from influence_cli.api import InfluenceError
from influence_trl.stage import Failure

_GIB = 1024**3
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FULL_WORDS = re.compile(
    r"No space left|os error 28|os error 27|os error 122|Disk quota|File too large|PytorchStreamWriter failed|"
    r"unexpected pos|file write failed",
    re.IGNORECASE,
)
_MEMORY_WORDS = re.compile(
    r"out of memory|can't allocate memory|not enough memory|Cannot allocate memory|CUBLAS_STATUS_ALLOC_FAILED",
    re.IGNORECASE,
)
_WANTED = re.compile(
    r"(?:tried to allocate|you tried to allocate|Tried to allocate) ([\d.]+) ?(bytes|[KMG]iB)", re.IGNORECASE
)


class StoppedError(Exception):
    """A signal asked for the end; a checkpoint was written."""


class NotANumberError(Exception):
    """The loss or the gradient of a step is no number."""

    def __init__(self, step: int, what: str) -> None:
        super().__init__(f"the {what} of step {step} is no number")
        self.step = step
        self.what = what


def told_failure(error: BaseException, micro_batch: int) -> Failure:
    """Return what ended a training process, as one line and its mend."""
    text = " ".join(str(error).split())
    if isinstance(error, StoppedError | KeyboardInterrupt | SystemExit):
        return Failure(reason="stopped", message="Training was stopped by a signal.", hint="Run it again to go on.")
    if isinstance(error, NotANumberError):
        return Failure(
            reason="not-a-number",
            message=f"The {error.what} of step {error.step} is no number, so training was ended.",
            hint="Lower learning_rate or max_grad_norm, or compute in float32 (dtype).",
        )
    if isinstance(error, InfluenceError):
        return Failure(reason="mistake", message=str(error.args[0]), hint=error.hint)
    if isinstance(error, MemoryError) or _is_memory(error, text):
        return Failure(
            reason="memory",
            message=f"Memory does not suffice for {micro_batch} rows at once: {_need(text)}.",
            hint="Lower max_length or micro_batch, set gradient_checkpointing, or quantize the base.",
        )
    if (isinstance(error, OSError) and error.errno in _FULL) or _FULL_WORDS.search(text):
        return Failure(
            reason="disk",
            message=f"The disk is full, or a file may not grow: {text[:200]}",
            hint="Free some space and run it again; the last whole checkpoint is taken up.",
        )
    return Failure(
        reason="internal", message=f"Training failed: {type(error).__name__}: {text[:300]}", hint="See training.log."
    )


def _is_memory(error: BaseException, text: str) -> bool:
    return type(error).__name__ == "OutOfMemoryError" or (
        isinstance(error, RuntimeError) and _MEMORY_WORDS.search(text) is not None
    )


def _need(text: str) -> str:
    """Return what was in use, what was asked for on top, and what there is."""
    match = _WANTED.search(text)
    scale = {"bytes": 1, "kib": 1024, "mib": 1024**2, "gib": _GIB}
    wanted = float(match[1]) * scale[match[2].lower()] if match else 0.0
    used, there = _in_use()
    more = f" and {wanted / _GIB:.2f} GiB more were asked for" if wanted else ""
    return f"{used / _GIB:.2f} GiB were in use{more}; there are {there / _GIB:.1f} GiB"


def _in_use() -> tuple[float, float]:
    """Return the most bytes this process held, and how many there are, on the GPU if one is used."""
    import os

    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        return float(torch.cuda.max_memory_allocated()), float(torch.cuda.mem_get_info()[1])
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return float(most), float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
