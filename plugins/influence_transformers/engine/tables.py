"""A pass as tables of numbers, from which a few kernels do all parts of a layer at once.

Concept: what a part reads becomes items: a block of rows and a piece of a span, named by where its memory lies. All
tables of a pass are one array, so that they go to the device in one copy and serve every layer. Invariants: the items
of a row cover what it may see, each position once; an item's partial results lie at ``results`` and after, row by row,
and ``parts`` names each row's; what fills a table up (zeros, -1 in ``parts``) does nothing.
Source: parts of long spans as partial results of their own: Dao et al., Flash-Decoding, 2023.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from influence_transformers.engine.attention import Plan, Single
from influence_transformers.engine.segments import Aside, CacheShape, Segment, Span

Table = npt.NDArray[np.int64]

FEW, MANY = 16, 64
"""Rows x heads that a program takes at once: in items of few rows, as in decoding, and in others."""
PIECE = 512
"""Positions of a span that an item of few rows reads at most."""
COLUMNS = 11
"""Columns of an item, as :class:`Item` names them."""
WORD = 63
"""Positions that one number of a mask speaks of; the sign is left alone."""


class Item(NamedTuple):
    """``rows`` rows (from ``listed`` on) that read positions ``start`` to ``stop`` of a segment at ``base``.

    The first of them sees those below ``limit``, each other one ``step`` more; of those, with ``words`` > 0, what its
    mask says (``masks`` from ``mask`` on, so many words a row).
    """

    base: int
    capacity: int
    start: int
    stop: int
    listed: int
    rows: int
    limit: int
    step: int
    result: int
    mask: int
    words: int


class Sizes(NamedTuple):
    """How long each table is; ``parts`` is the most of a row, ``results`` how many partial results there are."""

    rows: int
    wanted: int
    few: int
    many: int
    masked: int
    listed: int
    parts: int
    results: int
    masks: int

    @property
    def lengths(self) -> dict[str, int]:
        """The numbers in each table, in the order in which they lie in the one array."""
        return {
            "tokens": self.rows,
            "positions": self.rows,
            "wanted": self.wanted,
            "places": 3 * self.rows,
            "few": COLUMNS * self.few,
            "many": COLUMNS * self.many,
            "masked": COLUMNS * self.masked,
            "listed": self.listed,
            "parts": self.rows * self.parts,
            "masks": self.masks,
        }

    @property
    def places(self) -> dict[str, slice]:
        """Where each table lies in the one array: begun at even places, so that kernels are compiled for one alignment."""
        found, at = {}, 0
        for name, length in self.lengths.items():
            found[name] = slice(at, at + length)
            at += length + length % 2
        return found


@dataclass
class Tables:
    """The tables of one pass, each flat but for ``parts``, rows x most parts of a row."""

    tokens: Table
    positions: Table
    wanted: Table
    places: Table
    few: Table
    many: Table
    masked: Table
    listed: Table
    parts: Table
    masks: Table
    results: int

    @property
    def sizes(self) -> Sizes:
        """How long they are."""
        few, many, masked = (len(t) // COLUMNS for t in (self.few, self.many, self.masked))
        return Sizes(
            rows=len(self.tokens),
            wanted=len(self.wanted),
            few=few,
            many=many,
            masked=masked,
            listed=len(self.listed),
            parts=self.parts.shape[1],
            results=self.results,
            masks=len(self.masks),
        )

    def packed(self, sizes: Sizes) -> Table:
        """Return all of them as one array, each filled up to ``sizes``, which are no smaller than its own."""
        places = sizes.places
        whole = np.zeros(places["masks"].stop, np.int64)
        for name, place in places.items():
            table: Table = getattr(self, name)
            if name == "parts":
                into = whole[place].reshape(sizes.rows, sizes.parts)
                into[:] = -1
                into[: table.shape[0], : table.shape[1]] = table
            else:
                whole[place.start : place.start + len(table)] = table
        return whole


@dataclass
class Maker:
    """Makes tables for a model whose layers are alike; used by one thread.

    ``repeat`` is how many query heads share a key head, ``origin`` the address (in bytes) that all others count from.
    """

    shape: CacheShape
    repeat: int
    origin: int
    _aside: Aside = field(init=False)

    def __post_init__(self) -> None:
        self._aside = Aside(self.shape)

    def make(self, plan: Plan, tokens: list[int], positions: list[int], wanted: list[int]) -> Tables:
        """Return the tables of a pass."""
        draft = _Draft(self.repeat, lambda segment: (segment.address - self.origin) // self.shape.dtype.itemsize)
        places = np.zeros((plan.rows, 3), np.int64)
        places[: len(plan.singles)] = draft.singles(plan.singles)
        for segment, at, start, stop in plan.writes:
            places[start:stop, :2] = draft.base(segment), segment.capacity
            places[start:stop, 2] = np.arange(at, at + stop - start)
            draft.read(Span(segment, at, at + stop - start), range(start, stop), step=1)
        for read in plan.reads:
            for span in read.spans:
                draft.read(span, read.rows)
        masks = [part for part in plan.among if part.mask is not None]
        masked = sum(part.stop - part.start for part in masks)
        aside = self._aside.segment(masked) if masked else None
        at = 0
        for part in masks:
            count = part.stop - part.start
            assert aside is not None
            assert part.mask is not None
            places[part.start : part.stop, :2] = draft.base(aside), aside.capacity
            places[part.start : part.stop, 2] = np.arange(at, at + count)
            draft.read_masked(Span(aside, at, at + count), range(part.start, part.stop), part.mask.numpy())
            at += count
        return draft.tables(tokens, positions, wanted, places.reshape(-1))


def mask_words(mask: npt.NDArray[np.bool_]) -> Table:
    """Return a mask's rows as numbers of ``WORD`` bits each, rows x words."""
    words = -(-mask.shape[1] // WORD)
    padded = np.zeros((len(mask), words * WORD), np.int64)
    padded[:, : mask.shape[1]] = mask
    bits: Table = padded.reshape(len(mask), words, WORD) @ (1 << np.arange(WORD, dtype=np.int64))
    return bits


@dataclass
class _Draft:
    repeat: int
    base_of: Callable[[Segment], int]
    bases: dict[int, int] = field(default_factory=dict)
    alone: list[Table] = field(default_factory=list)
    alone_many: list[Table] = field(default_factory=list)
    few: list[Item] = field(default_factory=list)
    many: list[Item] = field(default_factory=list)
    masked: list[Item] = field(default_factory=list)
    listed: list[Table] = field(default_factory=list)
    owners: list[Table] = field(default_factory=list)
    masks: list[Table] = field(default_factory=list)
    mask_words: int = 0
    rows_listed: int = 0
    results: int = 0

    def base(self, segment: Segment) -> int:
        """Return where a segment lies."""
        found = self.bases.get(id(segment))
        if found is None:
            found = self.bases[id(segment)] = self.base_of(segment)
        return found

    def singles(self, singles: list[Single]) -> Table:
        """Add single rows' reads of what is their own, all at once; return where they are written (rows x 3)."""
        places = np.array(
            [(self.base(segment), segment.capacity, at) for segment, at in singles], np.int64
        ).reshape(-1, 3)  # fmt: skip
        seen = places[:, 2] + 1
        pieces = -(-seen // PIECE)
        row = np.repeat(np.arange(len(singles)), pieces)
        start = PIECE * (np.arange(len(row)) - np.repeat(np.cumsum(pieces) - pieces, pieces))
        stop = np.minimum(start + PIECE, seen[row])
        items = np.zeros((len(row), COLUMNS), np.int64)
        items[:, 0], items[:, 1] = places[row, 0], places[row, 1]
        items[:, 2], items[:, 3], items[:, 4] = start, stop, self._list(range(len(singles))) + row
        items[:, 5], items[:, 6], items[:, 8] = 1, stop, self._result(row) + np.arange(len(row))
        (self.alone if self.repeat <= FEW else self.alone_many).append(items.reshape(-1))
        return places

    def read(self, span: Span, rows: Sequence[int], step: int = 0) -> None:
        """Add a read of a span by rows; with ``step`` 1 each row sees one position more, the first only the first."""
        few = len(rows) * self.repeat <= FEW
        items, block, piece = (self.few, FEW, PIECE) if few else (self.many, MANY, span.stop - span.start)
        base, listed = self.base(span.segment), self._list(rows)
        for first in range(0, len(rows), block // self.repeat):
            count = min(block // self.repeat, len(rows) - first)
            limit = span.start + 1 + first if step else span.stop
            stop = min(span.stop, limit + step * (count - 1))
            for at in range(span.start, stop, piece):
                items.append(
                    Item(base, span.segment.capacity, at, min(at + piece, stop), listed + first, count, limit, step,
                         self._result(rows[first : first + count]), 0, 0)
                )  # fmt: skip

    def read_masked(self, span: Span, rows: Sequence[int], mask: npt.NDArray[np.bool_]) -> None:
        """Add a read of a span by rows each of which sees what its row of ``mask`` (rows x positions) says."""
        bits = mask_words(mask)
        words = bits.shape[1]
        base, listed, block = self.base(span.segment), self._list(rows), MANY // self.repeat
        for first in range(0, len(rows), block):
            count = min(block, len(rows) - first)
            self.masked.append(
                Item(base, span.segment.capacity, span.start, span.stop, listed + first, count, span.stop, 0,
                     self._result(rows[first : first + count]), self.mask_words + first * words, words)
            )  # fmt: skip
        self.masks.append(bits.reshape(-1))
        self.mask_words += bits.size

    def tables(self, tokens: list[int], positions: list[int], wanted: list[int], places: Table) -> Tables:
        """Return the tables."""
        owners = _joined(self.owners)
        order = np.argsort(owners, kind="stable")
        counts = np.bincount(owners, minlength=len(tokens))
        column = np.arange(len(owners)) - np.repeat(np.cumsum(counts) - counts, counts)
        parts = np.full((len(tokens), int(counts.max())), -1, np.int64)
        parts[owners[order], column] = order
        few, many, masked = (
            _joined([*alone, np.array(items, np.int64).reshape(-1)])
            for alone, items in ((self.alone, self.few), (self.alone_many, self.many), ([], self.masked))
        )
        return Tables(
            np.array(tokens, np.int64), np.array(positions, np.int64), np.array(wanted, np.int64), places,
            few, many, masked, _joined(self.listed), parts, _joined(self.masks), self.results,
        )  # fmt: skip

    def _list(self, rows: Sequence[int]) -> int:
        start = self.rows_listed
        self.listed.append(np.array(rows, np.int64))
        self.rows_listed += len(rows)
        return start

    def _result(self, rows: Sequence[int] | Table) -> int:
        start = self.results
        self.owners.append(np.array(rows, np.int64))
        self.results += len(rows)
        return start


def _joined(tables: list[Table]) -> Table:
    return np.concatenate(tables) if tables else np.zeros(0, np.int64)
