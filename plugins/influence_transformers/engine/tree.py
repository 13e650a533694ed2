"""What is cached: a radix tree of token prefixes, one root an adapter.

Concept: a node holds the tokens of one edge and the span with their keys and values; a path from the root spells a
prefix. Invariants: children of a node start with different tokens; the nodes of a running sequence's path are pinned
(``pins`` > 0) and never evicted; a node's pins are at least each child's; only unpinned leaves are evicted, ends of
questions before all others, then the least recently used.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from influence_transformers.engine.segments import Pool, Segment, Span

Tokens = npt.NDArray[np.int32]


class Node:
    """One edge of the tree; ``asked`` if it ends a closed question, which seldom comes again."""

    __slots__ = ("asked", "children", "parent", "pins", "span", "tokens", "used")

    def __init__(self, parent: Node | None, tokens: Tokens, span: Span | None, used: int) -> None:
        self.parent = parent
        self.tokens = tokens
        self.span = span
        self.children: dict[int, Node] = {}
        self.pins = 0
        self.used = used
        self.asked = False

    def path(self) -> list[Node]:
        """Return the nodes from below the root down to this one."""
        nodes: list[Node] = []
        node: Node | None = self
        while node is not None and node.parent is not None:
            nodes.append(node)
            node = node.parent
        return nodes[::-1]


_SLACK, _GRAIN = 1.25, 32
"""A segment may be so much larger than what is used of it before the rest is given back."""


_Entry = tuple[bool, int, int, Node]
"""An unpinned leaf in the order of eviction: whether it is no question's end, when it was used, a number for order."""
_FEW = 1024
"""Entries that are kept without a look at how many of them still mean something."""


def _can_go(node: Node) -> bool:
    """Return whether a node is an unpinned leaf; one that is no more in the tree has no span."""
    return node.parent is not None and node.span is not None and not node.children and not node.pins


def common_length(a: Tokens, b: Tokens) -> int:
    """Return how many tokens two sequences share from their start."""
    n = min(len(a), len(b))
    different = np.flatnonzero(a[:n] != b[:n])
    return int(different[0]) if len(different) else n


class PrefixTree:
    """All cached prefixes of one engine."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self._roots: dict[str | None, Node] = {}
        self._clock = 0
        self._idle: list[_Entry] = []
        self._most_idle = _FEW
        self._entries = 0

    def root(self, adapter: str | None) -> Node:
        """Return the root of an adapter's prefixes."""
        if adapter not in self._roots:
            self._roots[adapter] = Node(None, np.empty(0, np.int32), None, 0)
        return self._roots[adapter]

    def matched(self, adapter: str | None, tokens: Tokens) -> int:
        """Return how many of the first tokens are cached, changing nothing."""
        return sum(count for _, count in self._walk(adapter, tokens))

    def descend(self, adapter: str | None, tokens: Tokens) -> Node:
        """Return the node whose path spells the longest cached prefix of ``tokens``, splitting an edge if need be."""
        self._clock += 1
        node = self.root(adapter)
        for child, count in self._walk(adapter, tokens):
            node = child if count == len(child.tokens) else self._split(child, count)
            node.used = self._clock
        return node

    def extend(self, node: Node, tokens: Tokens, span: Span) -> Node | None:
        """Return the pinned node that covers ``tokens`` after ``node``, which the caller has pinned.

        ``node`` itself grows if ``span`` goes on where its own ends and nothing hangs below it; otherwise a child is
        made. None if a child that starts alike is there already: then the caller's copy stays out of the tree.
        """
        self._clock += 1
        node.used = self._clock
        mine = node.span
        if mine is not None and mine.segment is span.segment and mine.stop == span.start and not node.children:
            node.tokens = np.concatenate([node.tokens, tokens])
            node.span = Span(mine.segment, mine.start, span.stop)
            return node
        if int(tokens[0]) in node.children:
            return None
        child = Node(node, tokens, span, self._clock)
        child.pins = 1
        node.children[int(tokens[0])] = child
        return child

    def own(self, node: Node, extra: int) -> tuple[Node, Segment] | None:
        """Return ``node``, made a leaf with a segment of its own, with room for ``extra`` positions to append.

        Unpinned nodes above it that lead only here are merged into it, so that a conversation lies in one piece. None
        if the node is in use or has children.
        """
        if node.parent is None or node.pins or node.children:
            return None
        chain = [node]
        above = node.parent
        while above.parent is not None and not above.pins and len(above.children) == 1:
            chain.append(above)
            above = above.parent
        chain.reverse()
        spans = [n.span for n in chain if n.span is not None]
        length = sum(s.stop - s.start for s in spans)
        first = spans[0]
        if len(spans) == 1 and first.start == 0 and first.stop == first.segment.length == length:
            segment = first.segment
            segment.reserve(length + extra)
            return node, segment
        segment = self.pool.segment(length + extra)
        for span in spans:
            segment.copy_from(*span)
        merged = Node(above, np.concatenate([n.tokens for n in chain]), Span(segment, 0, length), node.used)
        above.children[int(merged.tokens[0])] = merged
        for old in chain:
            old.span = None
        return merged, segment

    def pin(self, node: Node) -> None:
        """Keep a path from being evicted."""
        for n in node.path():
            n.pins += 1

    def unpin(self, node: Node, *, asked: bool = False) -> None:
        """Undo :meth:`pin`; nodes put into the path by a split since then are unpinned too.

        ``asked``: whether the path ends a closed question.
        """
        node.asked = asked and node.parent is not None
        for n in node.path():
            n.pins -= 1
            self._trim(n)
        self._may_go(node)

    def evict(self, target: int) -> bool:
        """Drop unpinned leaves until at most ``target`` bytes are used; whether that was reached."""
        while self.pool.used > target:
            leaf = self._next_to_go()
            if leaf is None or leaf.parent is None:
                return False
            del leaf.parent.children[int(leaf.tokens[0])]
            leaf.span = None
            self._trim(leaf.parent)
            self._may_go(leaf.parent)
        return True

    def _may_go(self, node: Node) -> None:
        """Remember a node that can be evicted; what was not one then or is none later is found out when its turn comes."""
        if not _can_go(node):
            return
        heapq.heappush(self._idle, self._entry(node))
        if len(self._idle) > self._most_idle:  # of nodes that came and went; nothing of them is kept for long
            self._idle = [self._entry(leaf) for leaf in self.nodes() if _can_go(leaf)]
            heapq.heapify(self._idle)
            self._most_idle = max(_FEW, 2 * len(self._idle))

    def _entry(self, node: Node) -> _Entry:
        self._entries += 1
        return not node.asked, node.used, self._entries, node

    def _next_to_go(self) -> Node | None:
        """Return the unpinned leaf that is evicted first; None if there is none."""
        while self._idle:
            plain, used, _, node = heapq.heappop(self._idle)
            if not _can_go(node):
                continue
            if (plain, used) == (not node.asked, node.used):
                return node
            self._may_go(node)
        return None

    def _trim(self, node: Node) -> None:
        """Give back what an unpinned edge holds of a segment beyond its own part, if no other edge lies there."""
        span = node.span
        if span is None or node.pins or span.segment.capacity <= _SLACK * (span.stop - span.start) + _GRAIN:
            return
        beside = [*node.children.values(), *([node.parent] if node.parent is not None else [])]
        if all(other.span is None or other.span.segment is not span.segment for other in beside):
            node.span = self._copied(span)

    def nodes(self) -> Iterator[Node]:
        """Yield every node but the roots."""
        stack = [child for root in self._roots.values() for child in root.children.values()]
        while stack:
            node = stack.pop()
            stack.extend(node.children.values())
            yield node

    def _walk(self, adapter: str | None, tokens: Tokens) -> Iterator[tuple[Node, int]]:
        node = self.root(adapter)
        done = 0
        while done < len(tokens):
            child = node.children.get(int(tokens[done]))
            if child is None:
                return
            count = common_length(child.tokens, tokens[done:])
            ends = count < len(child.tokens)  # asked before the caller may split the edge
            yield child, count
            if ends:
                return
            done += count
            node = child

    def _split(self, node: Node, count: int) -> Node:
        """Return a new node with the first ``count`` tokens of ``node``, which keeps the rest below it.

        An unpinned edge is copied into two segments of the right size, so that evicting the lower half frees memory;
        of an unpinned end of a question, the lower half is dropped.
        """
        assert node.parent is not None
        assert node.span is not None
        segment, start, stop = node.span
        upper_span = Span(segment, start, start + count)
        if node.asked and not node.pins and not node.children:
            upper = Node(node.parent, node.tokens[:count], self._copied(upper_span), node.used)
            node.parent.children[int(upper.tokens[0])] = upper
            node.span = None
            self._may_go(upper)
            return upper
        lower_span = Span(segment, start + count, stop)
        if not node.pins:
            upper_span, lower_span = self._copied(upper_span), self._copied(lower_span)
        upper = Node(node.parent, node.tokens[:count], upper_span, node.used)
        upper.pins = node.pins
        node.parent.children[int(upper.tokens[0])] = upper
        node.tokens, node.span, node.parent = node.tokens[count:], lower_span, upper
        upper.children[int(node.tokens[0])] = node
        return upper

    def _copied(self, span: Span) -> Span:
        length = span.stop - span.start
        segment = self.pool.segment(length)
        segment.copy_from(*span)
        return Span(segment, 0, length)
