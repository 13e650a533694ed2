"""What lies under the engine: packed layers and the drawing of tokens."""

import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from influence_transformers.engine.forward import SHORT, SharedRead  # noqa: E402
from influence_transformers.engine.sampling import Draws, draw_tokens  # noqa: E402
from influence_transformers.engine.segments import Span  # noqa: E402
from influence_transformers.fusing import FusedNorm, fuse_norms  # noqa: E402
from influence_transformers.native.products import NativeLinear  # noqa: E402
from influence_transformers.packing import PackedLinear, pack_linears  # noqa: E402

DTYPES = [torch.float32, torch.bfloat16]


def plain_layer(dtype, *, bias: bool, ins: int = 48, outs: int = 80):
    torch.manual_seed(ins + outs)
    return torch.nn.Linear(ins, outs, bias=bias).to(dtype).requires_grad_(requires_grad=False)


@pytest.mark.parametrize(("native", "kind"), [(True, NativeLinear), (False, PackedLinear)])
def test_this_processor_packs(native, kind):
    """Guards the other tests here: where nothing is packed they would compare nothing."""
    model = torch.nn.Sequential(plain_layer(torch.float32, bias=False))
    if pack_linears(model, native=native) == 0 or (native and shutil.which("cc") is None):
        pytest.skip("this build of torch has no packed linear layers, or there is no C compiler")
    assert isinstance(model[0], kind)
    assert not list(model.parameters())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("native", [True, False])
@settings(deadline=None, max_examples=25)
@given(
    rows=st.integers(0, 600), bias=st.booleans(), outs=st.integers(1, 90), ins=st.integers(1, 70), rounded=st.booleans()
)
def test_a_packed_layer_computes_what_the_plain_one_does(dtype, native, rows, bias, outs, ins, rounded):
    plain = plain_layer(dtype, bias=bias, ins=ins, outs=outs)
    if rounded:  # as most published weights are
        plain.weight.data = plain.weight.data.to(torch.bfloat16).to(dtype)
    model = torch.nn.Sequential(plain)
    given_rows = torch.randn(rows, ins).to(dtype)
    pack_linears(model, native=native)
    if isinstance(model[0], NativeLinear):
        assert model[0].panels.dtype == (torch.bfloat16 if rounded else torch.float32)
    tolerance = 1e-4 if dtype == torch.float32 else 5e-2
    assert torch.allclose(model(given_rows).float(), plain(given_rows).float(), rtol=tolerance, atol=tolerance)


def test_deep_products_are_widened_piece_by_piece():
    plain = plain_layer(torch.float32, bias=True, ins=5000, outs=64)
    plain.weight.data = plain.weight.data.to(torch.bfloat16).float()
    model, rows = torch.nn.Sequential(plain), torch.randn(2, 150, 5000)
    pack_linears(model)
    assert torch.allclose(model(rows), plain(rows), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("native", [True, False])
def test_adapters_sit_on_packed_layers(native):
    peft = pytest.importorskip("peft")
    plain = torch.nn.ModuleDict({"one": plain_layer(torch.float32, bias=True), "words": torch.nn.Embedding(3, 3)})
    packed = torch.nn.ModuleDict(dict(plain.items()))
    if pack_linears(packed, native=native) == 0:
        pytest.skip("this build of torch has no packed linear layers")
    rows = torch.randn(5, 48)
    answers = []
    for model in (plain, packed):
        torch.manual_seed(3)
        peft.inject_adapter_in_model(peft.LoraConfig(r=4, target_modules=["one"], init_lora_weights=False), model)
        answers.append(model["one"](rows))
    assert torch.allclose(*answers, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(answers[1], plain["one"].base_layer(rows), atol=1e-2)


def by_the_book(row, draw: Draws) -> tuple[int, float]:
    """Return the token that inverting the whole cumulative distribution gives, and how near a boundary the point lies."""
    weights = torch.softmax(row.double() / draw.temperature, 0)
    cumulative = weights.cumsum(0)
    point = draw.next() * float(cumulative[-1])
    return int(torch.searchsorted(cumulative, point, right=True)), float((cumulative - point).abs().min())


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10_000),
    size=st.integers(2, 700),
    rows=st.integers(1, 9),
    temperature=st.sampled_from([0.3, 1.0, 1.7]),
    spread=st.sampled_from([0.0, 1.0, 8.0]),
)
def test_tokens_are_drawn_by_the_cumulative_distribution(seed, size, rows, temperature, spread):
    logits = torch.randn(rows, size, generator=torch.Generator().manual_seed(seed)) * spread
    found = draw_tokens(logits.clone(), [Draws(temperature, 1.0, seed + i) for i in range(rows)])
    for i, token in enumerate(found):
        expected, distance = by_the_book(logits[i], Draws(temperature, 1.0, seed + i))
        assert token == expected or distance < 1e-5


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 10_000),
    kinds=st.lists(st.sampled_from([(0.0, 1.0), (1.0, 1.0), (0.8, 0.9)]), min_size=1, max_size=8),
)
def test_a_row_draws_alone_as_in_company(seed, kinds):
    logits = torch.randn(len(kinds), 300, generator=torch.Generator().manual_seed(seed)) * 3
    together = draw_tokens(logits.clone(), [Draws(t, p, seed + i) for i, (t, p) in enumerate(kinds)])
    alone = [draw_tokens(logits[i : i + 1].clone(), [Draws(t, p, seed + i)])[0] for i, (t, p) in enumerate(kinds)]
    assert together == alone


def test_tokens_that_are_ruled_out_are_never_drawn():
    logits = torch.full((64, 300), -torch.inf)
    logits[:, 299] = 0.0
    logits[:32, 5] = 1.0
    found = draw_tokens(logits, [Draws(1.0, 1.0, i) for i in range(64)])
    assert set(found[:32]) == {5, 299}
    assert set(found[32:]) == {299}


@st.composite
def shared_reads(draw):
    """Spans that hang below one another, each seen by rows; a few of them not by rows of what they hang below."""
    reads = []
    for number in range(draw(st.integers(1, 8))):
        parent = draw(st.sampled_from([None, *reads]))
        length = draw(st.sampled_from([1, SHORT // 2, SHORT, SHORT + 1]))
        seen_by = parent.rows if parent and draw(st.integers(0, 3)) else range(12)
        rows = sorted(draw(st.sets(st.sampled_from(list(seen_by)), min_size=1)))
        reads.append(SharedRead((Span(number, 0, length),), parent, rows))
    return reads


@given(reads=shared_reads())
def test_reads_that_are_joined_show_every_row_what_it_saw_before(reads):
    def seen():
        return {(row, span) for read in reads for row in read.rows for span in read.spans}

    def count():
        return sum(len(read.rows) * len(read.spans) for read in reads)

    before = seen()
    for read in reads:
        read.go_on_from_parent()
    assert seen() == before
    assert count() == len(before)  # nothing twice


def test_a_short_beginning_of_most_rows_is_read_with_what_follows():
    beginning = SharedRead((Span("a", 0, 4),), None, [0, 1, 2, 3])
    most = SharedRead((Span("b", 0, 500),), beginning, [0, 1, 2])
    below = SharedRead((Span("c", 0, 9),), most, [0, 1, 2])
    for read in (beginning, most, below):
        read.go_on_from_parent()
    assert (beginning.rows, [span.segment for span in most.spans]) == ([3], ["a", "b"])
    assert below.spans == (Span("c", 0, 9),)  # what is long is not copied


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_fused_norm_computes_what_the_plain_one_does(dtype):
    from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
    from transformers.models.llama.modeling_llama import LlamaRMSNorm

    norms = torch.nn.ModuleDict(
        {"llama": LlamaRMSNorm(40, 1e-3), "gemma": GemmaRMSNorm(40), "layer": torch.nn.LayerNorm(40)}
    )
    norms.to(dtype).requires_grad_(requires_grad=False)
    norms["llama"].weight.copy_(torch.rand(40))
    plain, rows = dict(norms.items()), torch.randn(7, 40).to(dtype)
    assert fuse_norms(norms, devices=("cuda",)) == 0  # a processor gains nothing by it
    assert fuse_norms(norms, devices=("cpu",)) == 1
    assert isinstance(norms["llama"], FusedNorm)
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    assert torch.allclose(norms["llama"](rows).float(), plain["llama"](rows).float(), rtol=tolerance, atol=tolerance)
    assert norms["gemma"] is plain["gemma"]  # it multiplies by one more than its weight
