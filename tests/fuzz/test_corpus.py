"""Every input that fuzzing found or began with is told in one line, in a second, within 500 MB: see fuzz.py."""

import resource
import time
from pathlib import Path

import pytest

from .targets import TARGETS

CORPUS = Path(__file__).parent / "corpus"
MOST_SECONDS = 1.0
MOST_MIB = 500


@pytest.mark.parametrize("name", TARGETS)
def test_nothing_of_the_corpus_ends_in_a_traceback_hangs_or_takes_much_memory(name):
    files = sorted((CORPUS / name).iterdir())
    assert len(files) >= 3
    target = TARGETS[name]
    target(files[0].read_bytes())  # what is loaded once is not the input's doing
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for file in files:
        started = time.process_time()
        target(file.read_bytes())
        assert time.process_time() - started < MOST_SECONDS, file.name
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < MOST_MIB


def test_every_target_has_a_corpus_and_every_corpus_a_target():
    assert {folder.name for folder in CORPUS.iterdir()} == set(TARGETS)
