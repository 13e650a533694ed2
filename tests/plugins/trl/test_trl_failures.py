"""Whatever ends training is told in one line, by kind."""

import errno

import pytest

from influence_cli.errors import InfluenceError
from influence_trl.failures import NotANumberError, StoppedError, told_failure

torch = pytest.importorskip("torch")


def allocation_failure() -> Exception:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60)
    return caught.value


CUDA = torch.OutOfMemoryError(
    "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 79.10 GiB of which 1.10 GiB is free."
)


@pytest.mark.parametrize(
    ("error", "reason", "told"),
    [
        (CUDA, "memory", r"for 4 rows at once: [\d.]+ GiB were in use and 2.50 GiB more were asked for; there are"),
        (MemoryError(), "memory", "were in use; there are"),
        (OSError(errno.ENOSPC, "No space left on device"), "disk", "disk is full"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "disk", "disk is full"),
        (RuntimeError("[enforce fail at inline_container.cc:659] . unexpected pos 64 vs 0"), "disk", "disk is full"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), "disk", "disk is full"),
        (NotANumberError(3, "loss"), "not-a-number", "loss of step 3 is no number"),
        (StoppedError(), "stopped", "stopped by a signal"),
        (KeyboardInterrupt(), "stopped", "stopped by a signal"),
        (InfluenceError("Wrong.", hint="Mend it."), "mistake", "Wrong."),
        (OSError(errno.EACCES, "Permission denied"), "internal", "PermissionError: .*Permission denied"),
        (ValueError("a\nlong\nstory"), "internal", "ValueError: a long story"),
    ],
)
def test_errors_are_sorted_and_told_in_one_line(error, reason, told):
    import re

    failure = told_failure(error, 4)
    assert failure.reason == reason
    assert re.search(told, failure.message)
    assert "\n" not in failure.message


def test_what_this_machines_allocator_says_is_recognised():
    failure = told_failure(allocation_failure(), 8)
    assert failure.reason == "memory"
    assert "8 rows at once" in failure.message
    assert "more were asked for" in failure.message


def test_the_mend_is_kept():
    assert told_failure(InfluenceError("Wrong.", hint="Mend it."), 1).hint == "Mend it."
