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

    def leave(self, *, asked: bool = False) -> None:
        self.tree.unpin(self.node, asked=asked)
        del self.segment, self.above


class CheckedTree(PrefixTree):
    """Drops what it should: of all unpinned leaves, ends of questions first, then what was used longest ago."""

    dropped = 0

    def _next_to_go(self):
        leaves = [n for n in self.nodes() if not n.children and not n.pins]
        found = super()._next_to_go()
        key = lambda n: (not n.asked, n.used)  # noqa: E731
        assert (found is None) == (not leaves)
        if found is not None:
            assert found in leaves
            assert key(found) == min(map(key, leaves))
            self.dropped += 1
        return found


def test_an_edge_that_nobody_writes_to_gives_back_what_it_does_not_use():
    pool = Pool(SHAPE, 1 << 20)
    tree = PrefixTree(pool)
    writer = Reader(tree, [0] * 40, own=False)
    writer.segment.reserve(256)
    writer.read(40)
    other = Reader(tree, [0] * 40 + [1] * 30, own=False)
    other.read(70)
    theirs = other.segment.capacity
    writer.leave()
    assert pool.used == (256 + theirs) * SHAPE.token_bytes, "still read by the other"
    other.leave()
    assert pool.used == (64 + 32) * SHAPE.token_bytes
    assert Reader(tree, [0] * 40 + [1] * 31, own=False).seen() == [0] * 40 + [1] * 30


def test_an_edge_is_not_copied_while_those_below_lie_in_the_same_piece():
    pool = Pool(SHAPE, 1 << 20)
    tree = PrefixTree(pool)
    writer = Reader(tree, [0] * 40 + [1] * 100, own=False)
    writer.read(140)
    other = Reader(tree, [0] * 40 + [2] * 30, own=False)
    other.read(70)
    writer.leave()
    other.leave()
    assert pool.used == (160 + 32) * SHAPE.token_bytes
    tree.evict(pool.used - 1)
    assert pool.used == (64 + 32) * SHAPE.token_bytes, "what was used first went, and the rest of its piece with it"


@given(st.lists(st.tuples(TOKENS, st.booleans(), st.integers(0, 3)), min_size=1, max_size=40))
def test_what_was_used_longest_ago_is_dropped_first(steps):
    tree = CheckedTree(Pool(SHAPE, 1 << 20))
    for tokens, asked, room in steps:
        reader = Reader(tree, tokens, own=not asked)
        for until in range(reader.published + 1, len(tokens) + 1):
            reader.read(until)
        reader.leave(asked=asked)
        if room == 0:
            tree.evict(max(0, tree.pool.used - 300))
    del reader  # it holds a segment
    before = sum(1 for _ in tree.nodes())
    tree.evict(0)
    assert not list(tree.nodes())
    assert tree.dropped >= before
    assert tree.pool.used == 0


def test_what_came_and_went_is_not_remembered():
    tree = PrefixTree(Pool(SHAPE, 1 << 30))
    for number in range(5000):
        reader = Reader(tree, [1, *(int(b) for b in f"{number:016b}"), 1], own=True)
        reader.read(len(reader.tokens))
        reader.leave()
        if number % 2:
            tree.evict(tree.pool.used // 2)
        assert len(tree._idle) <= 2048


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
