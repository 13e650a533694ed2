"""Kernels for a processor: they compute what torch does, for every mix of rows; where they cannot be, torch does."""

import asyncio
import logging
import os
import platform
import shutil
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
if shutil.which("cc") is None:
    pytest.skip("there is no C compiler", allow_module_level=True)

from influence_cli.schemas.messages import ChatMessage  # noqa: E402
from influence_cli.schemas.requests import ChoiceRequest, GenerateRequest, Sampling  # noqa: E402
from influence_transformers.backend import TransformersBackend  # noqa: E402
from influence_transformers.engine.calls import Calls  # noqa: E402
from influence_transformers.engine.forward import Runner, Work, lay_out  # noqa: E402
from influence_transformers.engine.segments import Pool, Span  # noqa: E402
from influence_transformers.loading import load_model  # noqa: E402
from influence_transformers.native.compiling import CompileError, compiled  # noqa: E402
from influence_transformers.native.library import _tried as libraries  # noqa: E402
from influence_transformers.native.library import library  # noqa: E402
from influence_transformers.native.passes import NativeAttention, NativeRunner, Room  # noqa: E402
from influence_transformers.native.products import NativeLinear  # noqa: E402
from influence_transformers.options import TransformersOptions  # noqa: E402
from influence_transformers.packing import PackedLinear  # noqa: E402

from .conftest import make_model, make_tokenizer  # noqa: E402
from .plans import HEADS, LAYERS, filled, shape_of, work, works  # noqa: E402

X86 = platform.machine().lower() in {"x86_64", "amd64"}
SOURCE = "int twice(int x) { return 2 * x + MORE; }\n"


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


@pytest.mark.parametrize("outs", [64, 70])
def test_rows_of_a_product_have_the_same_bits_alone_and_in_company(outs):
    """Of weights that are bfloat16 in truth, deep enough to be widened in pieces."""
    torch.manual_seed(outs)
    plain = torch.nn.Linear(2100, outs).requires_grad_(requires_grad=False)
    plain.weight.copy_(plain.weight.to(torch.bfloat16))
    layer, rows = NativeLinear(plain), torch.randn(150, 2100)
    alone = torch.cat([layer(row.unsqueeze(0)) for row in rows])
    assert torch.allclose(alone, plain(rows), rtol=1e-4, atol=1e-4)
    for count in (2, 3, 4, 5, 6, 7, 8, 9, 15, 16, 17, 40, 129, 150):
        assert torch.equal(layer(rows[:count]), alone[:count])


@pytest.mark.skipif(not X86, reason="these are kinds of one architecture")
@pytest.mark.parametrize("kind", ["x86-64", "x86-64-v3"])
def test_processors_with_narrower_vectors_compute_the_same(kind, monkeypatch):
    libraries.cache_clear()
    monkeypatch.setattr("influence_transformers.native.compiling._native", lambda: f"-march={kind}")
    try:
        torch.manual_seed(2)
        plain = torch.nn.Linear(100, 70).requires_grad_(requires_grad=False)
        layer, rows = NativeLinear(plain), torch.randn(45, 100)
        assert layer.panels.shape[2] == (8 if kind == "x86-64" else 16)
        assert torch.allclose(layer(rows), plain(rows), rtol=1e-4, atol=1e-4)
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


def chat(text: str, system: str = "You are kind. " * 4) -> tuple[ChatMessage, ...]:
    return ChatMessage(role="system", content=system), ChatMessage(role="user", content=text)


async def answers(folder: Path, adapters=(None,), **options):
    """Return replies and probabilities of requests in one company, and what they were computed by."""
    options = {"max_rows": 48, **options}
    backend = TransformersBackend(str(folder), TransformersOptions(dtype="float32", **options))
    sampling = Sampling(temperature=0.8, max_tokens=9)
    asked = [
        backend.generate(
            GenerateRequest(role="agent", messages=chat(f"Question {i}?" * (1 + i % 3)), sampling=sampling, seed=3, adapter=a)
        )
        for i in range(6)
        for a in adapters
    ]  # fmt: skip
    replies = len(asked)
    asked += [
        backend.choose(ChoiceRequest(role="preference", messages=chat(f"Rate {i}."), choices=("1", "10", "no"), adapter=a))
        for i in range(6)
        for a in adapters
    ]  # fmt: skip
    found = await asyncio.gather(*asked)
    runner = backend._engine.runner
    await backend.aclose()
    return [r.text for r in found[:replies]], np.array([r.probabilities for r in found[replies:]]), runner


def of_family(folder: Path, family: str, **more) -> Path:
    """Write a tiny model of another family; its layers are those of its own code."""
    import transformers

    folder.mkdir()
    shape = {"hidden_size": 32, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
    shape |= {"num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 2048, "tie_word_embeddings": False}
    shape |= dict.fromkeys(("eos_token_id", "pad_token_id", "bos_token_id"), 0)
    size = make_tokenizer(folder, whole_numbers=True, template=CHATML)
    config = getattr(transformers, f"{family}Config")(vocab_size=size, initializer_range=0.3, **{**shape, **more})
    torch.manual_seed(5)
    model = getattr(transformers, f"{family}ForCausalLM")(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_()
    model.save_pretrained(folder)
    return folder


CHATML = make_model.__kwdefaults__["template"]


@pytest.mark.parametrize(
    ("family", "whole"), [("Llama", True), ("Qwen2", True), ("Mistral", True), ("Qwen3", False), ("Phi3", False)]
)
async def test_every_family_answers_alike(tmp_path, family, whole):
    """Whole layers where they are of the usual kind, else their attention: what they answer is the same."""
    folder = of_family(tmp_path / family, family)
    texts, shares, runner = await answers(folder)
    assert isinstance(runner, NativeRunner)
    assert runner.whole == whole
    expected_texts, expected_shares, by_torch = await answers(folder, native=False)
    assert isinstance(by_torch, Runner)
    assert texts == expected_texts
    np.testing.assert_allclose(shares, expected_shares, atol=1e-5)


@pytest.mark.parametrize(("known", "whole"), [(1024, False), (2048, True)])
async def test_layers_that_differ_at_late_positions_are_not_taken(tmp_path, known, whole):
    """Ministral's queries are multiplied from a position on that no short prompt reaches."""
    rotations = {"rope_type": "default", "rope_theta": 1e4, "llama_4_scaling_beta": 0.5}
    folder = of_family(
        tmp_path / "late", "Ministral3", rope_parameters={**rotations, "original_max_position_embeddings": known}
    )
    texts, _, runner = await answers(folder)
    assert runner.whole == whole
    assert texts == (await answers(folder, native=False))[0]


@pytest.mark.parametrize(("options", "batched"), [({}, False), ({"context_length": 256}, True)])
async def test_rotations_that_change_with_the_company_are_not_computed_in_one(tmp_path, options, batched):
    factors = {f"{name}_factor": [1.0 + i / 4 for i in range(8)] for name in ("short", "long")}
    rotations = {"rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": 256, **factors}
    folder = of_family(tmp_path / "long", "Llama", rope_parameters=rotations)
    texts, _, runner = await answers(folder, **options)
    assert (runner is not None) == batched
    assert texts == (await answers(folder, engine="plain"))[0]


def test_a_model_whose_code_reads_weights_keeps_them(tmp_path, caplog):
    """Mamba multiplies by a linear layer's weight itself; packed, there would be none."""
    from transformers import AutoModelForCausalLM

    folder = of_family(tmp_path / "mamba", "Mamba", state_size=4, num_heads=4)
    with caplog.at_level(logging.WARNING, logger="influence_transformers"):
        loaded = load_model(folder, TransformersOptions(dtype="float32"), "mamba")
    ours = [record.message for record in caplog.records if record.name.startswith("influence")]
    assert ["left as they are" in message for message in ours] == [True]
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ids = torch.tensor([[1, 2, 3, 4]])
    assert torch.allclose(loaded.model(ids).logits, plain(ids).logits, atol=1e-5)


async def test_a_request_has_the_same_answer_to_the_bit_alone_and_in_company(splitting, adapters):
    """Whatever runs beside it, however prompts are cut into passes, whatever is found in the cache, on any threads."""
    wanted = (None, str(adapters[0]))
    texts, shares, _ = await answers(splitting, wanted)
    threads = torch.get_num_threads()
    ways = [{"max_rows": 16}, {"max_rows": 300}, {"max_running": 1}, {"cache_mib": 16, "max_running": 3}]
    try:
        for options in (*ways, {"threads": threads + 2}):
            other_texts, other_shares, _ = await answers(splitting, wanted, **options)
            assert other_texts == texts
            assert np.array_equal(other_shares, shares)
    finally:
        torch.set_num_threads(threads)


async def test_adapters_are_computed_within_whole_layers(splitting, adapters):
    wanted = (None, *map(str, adapters))
    texts, shares, runner = await answers(splitting, wanted)
    expected_texts, expected_shares, _ = await answers(splitting, wanted, native=False)
    assert texts == expected_texts
    np.testing.assert_allclose(shares, expected_shares, atol=1e-5)
    assert len({tuple(texts[i::3]) for i in range(3)}) == 3  # the adapters matter
    assert len(runner._decoders) == 3
    assert all(decoder is not None for decoder in runner._decoders.values())


async def test_layers_that_differ_in_what_they_compute_are_not_taken(tmp_path):
    """The modules are named as usual, and only the trial tells: what a layer adds is multiplied."""
    folder = of_family(tmp_path / "granite", "Granite")
    config = (folder / "config.json").read_text()
    (folder / "config.json").write_text(config.replace('"residual_multiplier": 1.0', '"residual_multiplier": 0.3'))
    assert (folder / "config.json").read_text() != config
    texts, _, runner = await answers(folder)
    assert not runner.whole
    assert texts == (await answers(folder, native=False))[0]


@pytest.fixture
def source(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("INFLUENCE_CACHE_DIR", str(tmp_path / "cache"))
    source = tmp_path / "twice.c"
    source.write_text(SOURCE)
    return source


def kept(source: Path) -> set[str]:
    return {path.name for path in folder(source).iterdir()}


def folder(source: Path) -> Path:
    return source.parent / "cache" / f"compiled-{os.getuid()}"


def test_what_is_compiled_is_kept_for_its_source_and_settings(source, monkeypatch):
    assert compiled(source, {"MORE": 1}).twice(4) == 9
    first = kept(source)
    assert len(first) == 1
    with monkeypatch.context() as patch:
        patch.setattr("subprocess.run", lambda *_, **__: pytest.fail("compiled again"))
        assert compiled(source, {"MORE": 1}).twice(5) == 11
    assert compiled(source, {"MORE": 2}).twice(4) == 10
    source.write_text(SOURCE.replace("2 *", "3 *"))
    assert compiled(source, {"MORE": 1}).twice(4) == 13
    assert len(kept(source)) == 3
    assert first < kept(source)


def test_another_processor_has_a_library_of_its_own(source, monkeypatch):
    compiled(source, {"MORE": 1})
    monkeypatch.setattr("influence_transformers.native.compiling._processor", lambda: "flags: fewer")
    compiled(source, {"MORE": 1})
    assert len(kept(source)) == 2


def test_an_error_in_the_source_is_named(source):
    source.write_text("int twice(int x) { return y; }\n")
    with pytest.raises(CompileError, match="fails.*error.*y"):
        compiled(source, {})
    assert kept(source) == set()


@pytest.mark.parametrize("how", ["below-a-file", "open-to-others"])
def test_a_cache_that_cannot_be_used_is_not(source, monkeypatch, how):
    """It is compiled for this process only; what others may have put into the cache is not loaded."""
    if how == "below-a-file":
        monkeypatch.setenv("INFLUENCE_CACHE_DIR", str(source / "below"))
    else:
        compiled(source, {"MORE": 1})
        (library,) = folder(source).iterdir()
        other = source.parent / "other"
        other.write_bytes(b"of somebody else")
        other.replace(library)
        library.parent.chmod(0o777)
    assert compiled(source, {"MORE": 1}).twice(4) == 9
    assert how == "below-a-file" or library.read_bytes() == b"of somebody else"


def test_a_damaged_library_is_made_anew(source):
    compiled(source, {"MORE": 1})
    (library,) = folder(source).iterdir()
    empty = source.parent / "empty"
    empty.write_bytes(b"")
    empty.replace(library)
    # what this process has loaded is found by its name, whatever has become of the file
    code = "import sys; from pathlib import Path; from influence_transformers.native.compiling import compiled; "
    code += "print(compiled(Path(sys.argv[1]), {'MORE': 1}).twice(4))"
    told = subprocess.run([sys.executable, "-c", code, str(source)], capture_output=True, text=True, check=True)
    assert told.stdout == "9\n"
    assert library.stat().st_size > 0


def test_a_header_is_part_of_its_source(source):
    (source.parent / "more.h").write_text("#define MORE 1\n")
    source.write_text('#include "more.h"\n' + SOURCE)
    assert compiled(source, {}).twice(4) == 9
    (source.parent / "more.h").write_text("#define MORE 2\n")
    assert compiled(source, {}).twice(4) == 10


def test_a_compiler_may_be_named_with_arguments(source, monkeypatch):
    monkeypatch.setenv("CC", f"{shutil.which('env')} cc -DMORE=7")
    assert compiled(source, {}).twice(1) == 9


@pytest.mark.parametrize(
    ("how", "says"), [("none", "no C compiler"), ("fails", "fails: exit code 1"), ("slow", "took more")]
)
async def test_without_a_compiler_torch_computes(splitting, tmp_path, monkeypatch, caplog, how, says):
    expected, _, _ = await answers(splitting)
    libraries.cache_clear()
    monkeypatch.setenv("INFLUENCE_CACHE_DIR", str(tmp_path))
    script = tmp_path / "compiler"
    script.write_text(f"#!{shutil.which('sh')}\nexec {shutil.which('false' if how == 'fails' else 'sleep')} 30\n")
    script.chmod(0o700)
    monkeypatch.setenv("CC", "" if how == "none" else str(script))
    monkeypatch.setenv("PATH", str(tmp_path))
    if how == "slow":
        monkeypatch.setattr("influence_transformers.native.compiling._SECONDS", 0.2)
    with caplog.at_level(logging.WARNING, logger="influence_transformers"):
        found, _, runner = await answers(splitting)
    libraries.cache_clear()
    assert found == expected
    assert isinstance(runner, Runner)
    assert [says in record.message for record in caplog.records] == [True]
    assert any(isinstance(module, PackedLinear) for module in runner._model._model.modules())
