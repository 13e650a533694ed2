"""Passes as a scheduler mixes them, over segments with random numbers in them."""

from concurrent.futures import Future

import numpy as np
import torch
from hypothesis import strategies as st

from influence_transformers.engine.attention import Among, Plan, Read, Single, Write
from influence_transformers.engine.forward import Work
from influence_transformers.engine.sampling import Draws
from influence_transformers.engine.segments import CacheShape, LayerShape, Pool, Span
from influence_transformers.engine.sequences import ChoiceTask, Sequence, TextTask
from influence_transformers.engine.tables import PIECE, WORD

HEADS, WIDTH, LAYERS = 2, 16, 2


def shape_of(width):
    return CacheShape(dict.fromkeys(range(LAYERS), LayerShape(HEADS, width, width)), torch.float32, torch.device("cpu"))


SHAPE = shape_of(WIDTH)


def filled(pool, length, spare=0):
    segment = pool.segment(length + spare)
    for layer in range(LAYERS):
        segment.keys[layer].copy_(torch.randn_like(segment.keys[layer]))
        segment.values[layer].copy_(torch.randn_like(segment.values[layer]))
    segment.length = length
    return segment


@st.composite
def plans(draw):
    """Single rows, chunks that go on, shared spans, and tries of choices, as a scheduler mixes them."""
    torch.manual_seed(draw(st.integers(0, 1000)))
    pool = Pool(SHAPE, 0)
    plan = Plan()
    for _ in range(draw(st.integers(0, 5))):
        at = draw(st.sampled_from([0, 3, 40, PIECE - 1, PIECE, 2 * PIECE + 5]))
        plan.singles.append(Single(filled(pool, at, 1), at))
    plan.rows = len(plan.singles)
    for _ in range(draw(st.integers(0 if plan.rows else 1, 3))):
        before, count = draw(st.sampled_from([0, 1, 70])), draw(st.sampled_from([1, 2, 9, 33, 90]))
        start = plan.rows
        segment = filled(pool, before, count)
        plan.writes.append(Write(segment, before, start, start + count))
        plan.among.append(Among(start, start + count, None))
        if before:
            plan.reads.append(Read((Span(segment, 0, before),), range(start, start + count)))
        plan.rows += count
        nodes = draw(st.sampled_from([0, 0, 3, 11, WORD + 7]))
        if nodes:
            start, plan.rows = plan.rows, plan.rows + nodes
            mask = torch.eye(nodes, dtype=torch.bool) | (torch.rand(nodes, nodes) < 0.4).tril()
            plan.among.append(Among(start, start + nodes, mask))
            plan.reads.append(Read((Span(segment, 0, before + count),), range(start, start + nodes)))
    for _ in range(draw(st.integers(0, 3))):
        rows = sorted(draw(st.sets(st.integers(0, plan.rows - 1), min_size=1)))
        lengths = draw(st.lists(st.sampled_from([1, 30, PIECE + 1]), min_size=1, max_size=2))
        spans = tuple(Span(filled(pool, n), draw(st.integers(0, n - 1)), n) for n in lengths)
        plan.reads.append(Read(spans, rows))
    return plan


def work(pool, above, own, count, choices=()):
    """Return ``count`` rows of a sequence that has read ``above`` and ``own`` positions more, and maybe asks for choices."""
    task = ChoiceTask(list(choices)) if choices else TextTask(Draws(0.0, 1.0, 0), 1)
    base = sum(span.stop - span.start for span in above)
    prompt = np.arange(base + own + count, dtype=np.int32)
    segment = filled(pool, own, count)
    sequence = Sequence(prompt, task, None, Future(), above=above, segment=segment, base=base, computed=base + own)
    return Work(sequence, count, True)


CHOICES = st.sampled_from([[[1]], [[1, 2], [1, 3], [4, 2, 1]], [[i] for i in range(WORD + 7)]])
"""One of a single token, some that begin alike, and more than a number of a mask speaks of."""


@st.composite
def works(draw, shape):
    """Some work of a pass: single rows, then chunks and questions; they share beginnings."""
    torch.manual_seed(draw(st.integers(0, 1000)))
    pool = Pool(shape, 0)
    lengths = draw(st.lists(st.sampled_from([1, 30, 63, 64, 100, 513]), max_size=3))
    shared = [Span(filled(pool, length), 0, length) for length in lengths]
    own = st.sampled_from([0, 1, 40, 63, 64, 130])

    def above():
        return shared[: draw(st.integers(0, len(shared)))]

    found = [work(pool, above(), draw(own), 1) for _ in range(draw(st.integers(0, 4)))]
    for _ in range(draw(st.integers(0 if found else 1, 3))):
        choices = draw(CHOICES) if draw(st.booleans()) else ()
        found.append(work(pool, above(), draw(own), draw(st.sampled_from([1, 2, 9, 33, 90])), choices))
    return found
