"""One loaded model for all who name it, put to rest by the last of them."""

import subprocess
import sys

import pytest

from influence_vllm.sharing import Shared


class Model:
    """Keeps what was done with it."""

    def __init__(self, *, sleeps=False):
        self.sleeps = sleeps
        self.done = []

    def sleep(self):
        self.done.append("sleep")

    def wake(self):
        self.done.append("wake")

    def close(self):
        self.done.append("close")


def test_the_last_user_closes_it_and_the_next_gets_another():
    shared = Shared()
    one = shared.acquire("m", Model)
    assert shared.acquire("m", Model) is one
    shared.release("m")
    assert (one.done, shared.users("m")) == ([], 1)
    shared.release("m")
    assert (one.done, shared.users("m")) == (["close"], 0)
    assert shared.acquire("m", Model) is not one


def test_one_that_sleeps_is_woken_for_the_next_user():
    shared = Shared()
    one = shared.acquire("m", lambda: Model(sleeps=True))
    shared.release("m")
    assert shared.acquire("m", Model) is one
    assert one.done == ["sleep", "wake"]
    shared.close_all()
    assert one.done == ["sleep", "wake", "close"]


def test_one_that_cannot_be_made_leaves_nothing_behind():
    shared = Shared()

    def broken():
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        shared.acquire("m", broken)
    assert shared.acquire("m", Model).done == []


def test_what_still_sleeps_is_closed_when_the_program_ends():
    program = (
        "from influence_vllm.sharing import Shared\n"
        "class Model:\n"
        "    sleeps = True\n"
        "    def sleep(self): print('sleep')\n"
        "    def close(self): print('close')\n"
        "shared = Shared()\n"
        "shared.acquire('m', Model)\n"
        "shared.release('m')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["sleep", "close"]
