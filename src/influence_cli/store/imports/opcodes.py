"""How deep the tuples of a pickle stand in each other, known before anything is built.

Concept: the opcodes are followed on a stack of depths instead of objects. Tuples cannot change once they are made, so that a
depth read back from the memo is still true; every other object counts as 0.
"""

from __future__ import annotations

import pickletools
from typing import Any

_MARK = -1
_FIXED = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_PUTS = {"MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT"}
_GETS = {"GET", "BINGET", "LONG_BINGET"}


def _effect(opcode: pickletools.OpcodeInfo) -> tuple[int, bool, int]:
    """Return how many objects an opcode takes from below a mark, whether it takes all above one, how many it leaves."""
    before = [item.name for item in opcode.stack_before]
    marked = "mark" in before
    below = before.index("mark") if marked else len(before)
    return below, marked, len(opcode.stack_after)


_EFFECTS = {opcode.name: _effect(opcode) for opcode in pickletools.opcodes}


class TupleDepths:
    """The depths of the tuples on a pickle's stack and in its memo."""

    def __init__(self) -> None:
        self._stack: list[int] = []
        self._memo: dict[int, int] = {}

    def deepest(self, opcode: pickletools.OpcodeInfo, argument: Any) -> int:
        """Follow one opcode; return the depth of what lies on top after it. IndexError, KeyError for a broken pickle."""
        name, stack = opcode.name, self._stack
        if name in _PUTS:
            self._memo[len(self._memo) if name == "MEMOIZE" else int(argument)] = stack[-1]
        elif name in _GETS:
            stack.append(self._memo[int(argument)])
        elif name == "MARK":
            stack.append(_MARK)
        elif name == "DUP":
            stack.append(stack[-1])
        elif name in _FIXED:
            stack.append(1 + max((stack.pop() for _ in range(_FIXED[name])), default=0))
        elif name == "TUPLE":
            stack.append(1 + max(self._above_mark(), default=0))
        else:
            self._follow(name)
        return stack[-1] if stack else 0

    def _follow(self, name: str) -> None:
        below, marked, left = _EFFECTS[name]
        if marked:
            self._above_mark()
        for _ in range(below):
            self._stack.pop()
        self._stack.extend([0] * left)

    def _above_mark(self) -> list[int]:
        """Take and return what lies above the last mark, and the mark."""
        taken = []
        while (depth := self._stack.pop()) != _MARK:
            taken.append(depth)
        return taken
