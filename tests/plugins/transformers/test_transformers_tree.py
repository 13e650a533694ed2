"""The tree of cached prefixes holds what it says, whatever is read, split and dropped."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from influence_transformers.engine.segments import CacheShape, LayerShape, Pool, Span  # noqa: E402
from influence_transformers.engine.tree import PrefixTree, common_length  # noqa: E402

SHAPE = CacheShape({0: LayerShape(1, 1, 1)}, torch.float32, torch.device("cpu"))
TOKENS = st.lists(st.integers(0, 1), min_size=1, max_size=6)
STEPS = st.lists(st.tuples(TOKENS, st.integers(0, 4), st.booleans(), st.integers(0, 9)), min_size=1, max_size=25)


class Reader:
    """One sequence as the scheduler has it: keeps each position's own token where keys would be."""

    def __init__(self, tree: PrefixTree, tokens: list[int], *, own: bool) -> None:
        self.tree, self.tokens = tree, np.asarray(tokens, np.int32)
        known = self.tokens[:-1]
        matched = tree.matched(None, known)
        node = tree.descend(None, known)
        self.cached = sum(len(n.tokens) for n in node.path())
        assert self.cached == matched
        owned = tree.own(node, len(tokens)) if own else None
        self.node, self.segment = owned or (node, tree.pool.segment(len(tokens)))
        path = self.node.path()[:-1] if owned else self.node.path()
        self.base = sum(len(n.tokens) for n in path)
        self.above = [n.span for n in path if n.span is not None]
        tree.pin(self.node)
        self.published = self.cached

    def read(self, until: int) -> None:
        """Write what is not cached up to a position, and let the tree cover it."""
        at, stop = self.published - self.base, until - self.base
        self.segment.reserve(stop)
        values = torch.from_numpy(self.tokens[self.published : until].astype(np.float32)).view(1, -1, 1)
        self.segment.keys[0][:, at:stop] = values
        self.segment.values[0][:, at:stop] = values
        self.segment.length = stop
        span = Span(self.segment, at, stop)
        node = self.tree.extend(self.node, self.tokens[self.published : until], span)
        if node is not None:
            self.node, self.published = node, until

    def seen(self) -> list[int]:
        """What lies where its keys are looked for, before its own segment and in it."""
        parts = [span.segment.keys[0][0, span.start : span.stop, 0] for span in self.above]
        parts.append(self.segment.keys[0][0, : self.segment.length, 0])
        return torch.cat(parts).int().tolist()

    def leave(self) -> None:
        self.tree.unpin(self.node)


@given(STEPS)
def test_what_a_sequence_finds_cached_is_its_own_beginning(steps):
    tree = PrefixTree(Pool(SHAPE, 1 << 20))
    running: list[Reader] = []
    for tokens, stays, own, room in steps:
        reader = Reader(tree, tokens, own=own)
        for until in range(reader.published + 1, len(tokens) + 1):
            reader.read(until)
        assert reader.seen()[: len(tokens)] == tokens
        running.append(reader)
        for other in running:
            assert other.seen()[: len(other.tokens)] == other.tokens.tolist()
        while len(running) > stays:
            running.pop(0).leave()
        tree.evict(room * 256)
        for node in tree.nodes():
            assert node.span is not None
            spelt = node.span.segment.keys[0][0, node.span.start : node.span.stop, 0].int().tolist()
            assert spelt == node.tokens.tolist()


@given(TOKENS, TOKENS)
def test_the_common_length_is_that_of_the_common_beginning(one, other):
    found = common_length(np.asarray(one, np.int32), np.asarray(other, np.int32))
    assert one[:found] == other[:found]
    assert found == min(len(one), len(other)) or one[found] != other[found]


def test_an_edge_that_is_split_ends_the_descent():
    """What is left of a split edge may be shorter than what was matched, and lead on to a token that would fit."""
    tree = PrefixTree(Pool(SHAPE, 1 << 20))
    for tokens in ([1, 1], [1, 1, 2, 2], [1, 2, 2, 2]):
        reader = Reader(tree, tokens, own=False)
        for until in range(reader.published + 1, len(tokens) + 1):
            reader.read(until)
        assert reader.seen() == tokens
        reader.leave()
