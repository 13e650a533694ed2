"""Kernels for a processor: they compute what torch does, for every mix of rows; where they cannot be, torch does."""

import platform
import shutil
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
if shutil.which("cc") is None:
    pytest.skip("there is no C compiler", allow_module_level=True)

from influence_transformers.engine.calls import Calls  # noqa: E402
from influence_transformers.engine.forward import Work, lay_out  # noqa: E402
from influence_transformers.engine.segments import Pool, Span  # noqa: E402
from influence_transformers.native import compiling  # noqa: E402
from influence_transformers.native.library import _tried as libraries  # noqa: E402
from influence_transformers.native.library import library  # noqa: E402
from influence_transformers.native.passes import NativeAttention, Room  # noqa: E402
from influence_transformers.native.products import NativeLinear  # noqa: E402

from .plans import HEADS, LAYERS, filled, shape_of, work, works  # noqa: E402

X86 = platform.machine().lower() in {"x86_64", "amd64"}


def rows_for(count, shape, repeat):
    """Return random queries, keys and values of so many rows, for each layer."""
    width = shape.layers[0].key_dim
    return [tuple(torch.randn(count, HEADS * of, width) for of in (repeat, 1, 1)) for _ in range(LAYERS)]


def attended(plan, shape, repeat, given, scale=0.3):
    """Return every layer's attention of a plan, by the kernels."""
    kernels = NativeAttention(library(shape.layers[0].key_dim), shape, HEADS * repeat, plan, Room(shape))
    return torch.stack([kernels.attend(layer, *given[layer], scale) for layer in range(LAYERS)])


@pytest.mark.parametrize("width", [16, 80, 128])
@settings(deadline=None, max_examples=25)
@given(data=st.data(), repeat=st.sampled_from([1, 3, 4, 7, 20]), scale=st.sampled_from([0.1, 0.3, 8.0]))
def test_attention_is_what_calls_of_torch_compute(width, data, repeat, scale):
    """Far apart scores are among them, where all but the highest vanish."""
    shape = shape_of(width)
    plan = lay_out(data.draw(works(shape))).plan
    rows = rows_for(plan.rows, shape, repeat)
    found = attended(plan, shape, repeat, rows, scale)
    calls = Calls(plan, shape.device)
    expected = torch.stack([calls.attend(layer, *rows[layer], scale) for layer in range(LAYERS)])
    tolerance = 1e-4 if scale < 1 else 5e-3  # scores of hundreds are rounded to some millionths of that
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


@settings(deadline=None, max_examples=25)
@given(data=st.data(), repeat=st.sampled_from([1, 3]))
def test_neither_company_nor_threads_change_a_bit(data, repeat):
    shape = shape_of(16)
    found = data.draw(works(shape))
    plan = lay_out(found).plan
    rows = rows_for(plan.rows, shape, repeat)
    together = attended(plan, shape, repeat, rows)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(before + 1)
        assert torch.equal(attended(plan, shape, repeat, rows), together)
    finally:
        torch.set_num_threads(before)
    start = 0
    for one in found:
        own = lay_out([one]).plan
        mine = [tuple(t[start : start + own.rows] for t in layer) for layer in rows]
        assert torch.equal(attended(own, shape, repeat, mine), together[:, start : start + own.rows])
        start += own.rows


@settings(deadline=None, max_examples=25)
@given(
    cuts=st.lists(st.integers(0, 399), max_size=4).map(sorted),
    pieces=st.lists(st.integers(1, 90), max_size=4),
    scale=st.sampled_from([0.3, 5.0]),
)
def test_where_what_is_read_was_cut_changes_no_bit(cuts, pieces, scale):
    """A sequence of 400 positions read in one pass, and what its last rows come to if others had read its beginning."""
    shape = shape_of(16)
    pool = Pool(shape, 0)
    whole = work(pool, [], 0, 400)
    rows = rows_for(400, shape, 3)
    expected = attended(lay_out([whole]).plan, shape, 3, rows, scale)
    above = []
    for start, stop in pairwise([0, *cuts]):
        copy = pool.segment(stop - start)
        copy.copy_from(whole.sequence.segment, start, stop)
        above.append(Span(copy, 0, stop - start))
    at = cuts[-1] if cuts else 0
    sequence = replace(whole.sequence, above=above, base=at, computed=at, segment=pool.segment(400))
    while at < 400:
        count = min(pieces.pop() if pieces else 400, 400 - at)
        mine = [tuple(t[at : at + count] for t in layer) for layer in rows]
        found = attended(lay_out([Work(sequence, count, True)]).plan, shape, 3, mine, scale)
        assert torch.equal(found, expected[:, at : at + count])
        at += count
        sequence.computed = at
        sequence.segment.length = at - sequence.base


def linear_of(ins: int, outs: int, kind: torch.dtype, *, bias: bool = True) -> torch.nn.Linear:
    """Return a layer whose weights are of a kind in truth."""
    torch.manual_seed(outs)
    plain = torch.nn.Linear(ins, outs, bias=bias).requires_grad_(requires_grad=False)
    plain.weight.copy_(plain.weight.to(kind))
    return plain


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("outs", [64, 70])
def test_rows_of_a_product_have_the_same_bits_alone_and_in_company(outs, kind, bias):
    plain = linear_of(700, outs, kind, bias=bias)
    layer, rows = NativeLinear(plain), torch.randn(150, 700)
    assert layer.panels.dtype == kind
    alone = torch.cat([layer(row.unsqueeze(0)) for row in rows])
    assert torch.allclose(alone, plain(rows), rtol=1e-4, atol=1e-4)
    for count in (*range(2, 26), 40, 129, 150):
        assert torch.equal(layer(rows[:count]), alone[:count])


@pytest.mark.skipif(not X86, reason="these are kinds of one architecture")
@pytest.mark.parametrize("kind", ["x86-64", "x86-64-v3"])
def test_processors_with_narrower_vectors_compute_the_same(kind, monkeypatch):
    libraries.cache_clear()
    monkeypatch.setattr("influence_transformers.native.compiling._native", lambda: f"-march={kind}")
    try:
        for weights in (torch.float32, torch.bfloat16):
            plain = linear_of(100, 70, weights)
            layer, rows = NativeLinear(plain), torch.randn(45, 100)
            assert layer.panels.shape[2] == (8 if kind == "x86-64" else 16)
            for count in (*range(1, 20), 45):
                assert torch.allclose(layer(rows[:count]), plain(rows[:count]), rtol=1e-4, atol=1e-4)
        shape = shape_of(80)
        pool = Pool(shape, 0)
        shared = [Span(filled(pool, 100), 0, 100)]
        plan = lay_out([work(pool, shared, 30, 1), work(pool, shared, 3, 50, [[1, 2], [1, 3], [4]])]).plan
        given_rows = rows_for(plan.rows, shape, 3)
        calls = Calls(plan, shape.device)
        expected = torch.stack([calls.attend(layer, *given_rows[layer], 0.3) for layer in range(LAYERS)])
        np.testing.assert_allclose(attended(plan, shape, 3, given_rows), expected, rtol=1e-4, atol=1e-4)
    finally:
        libraries.cache_clear()


def test_scores_that_are_no_numbers_stay_none():
    shape = shape_of(16)
    plan = lay_out([work(Pool(shape, 0), [], 20, 1)]).plan
    rows = rows_for(1, shape, 1)
    assert torch.isfinite(attended(plan, shape, 1, rows)).all()
    rows[1][0][0, 1] = torch.nan
    found = attended(plan, shape, 1, rows)
    assert torch.isfinite(found[0]).all()
    assert torch.isfinite(found[1, 0, 0]).all()
    assert found[1, 0, 1].isnan().all()


def test_a_key_that_is_no_number_is_seen_even_where_it_begins_a_block():
    shape = shape_of(16)
    pool = Pool(shape, 0)
    plan = lay_out([work(pool, [], 64, 1)]).plan
    rows = rows_for(1, shape, 1)
    rows[1][1][0, 0] = torch.nan
    assert attended(plan, shape, 1, rows)[1, 0, 0].isnan().all()


@pytest.mark.parametrize("width", [16, 80])
def test_rows_have_the_same_bits_where_a_compiler_would_rather_not_fuse(width, monkeypatch):
    """Some processors' settings of gcc take products and sums apart, in loops of some shapes only."""
    libraries.cache_clear()
    monkeypatch.setattr(compiling, "_FLAGS", (*compiling._FLAGS, "--param=avoid-fma-max-bits=512"))
    try:
        shape = shape_of(width)
        pool = Pool(shape, 0)
        whole = work(pool, [], 0, 130)
        rows = rows_for(130, shape, 1)
        together = attended(lay_out([whole]).plan, shape, 1, rows)
        whole.sequence.computed = whole.sequence.segment.length = 129
        last = [tuple(t[129:] for t in layer) for layer in rows]
        alone = attended(lay_out([Work(whole.sequence, 1, True)]).plan, shape, 1, last)
        assert torch.equal(alone, together[:, 129:])
    finally:
        libraries.cache_clear()
