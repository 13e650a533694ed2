"""Kernels for a processor: they compute what torch does, for every mix of rows; where they cannot be, torch does."""

import asyncio
import logging
import os
import shutil
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
from influence_transformers.engine.forward import Runner  # noqa: E402
from influence_transformers.engine.tables import Maker  # noqa: E402
from influence_transformers.native.compiling import CompileError, compiled  # noqa: E402
from influence_transformers.native.library import library  # noqa: E402
from influence_transformers.native.passes import NativeAttention, NativeRunner, Room  # noqa: E402
from influence_transformers.options import TransformersOptions  # noqa: E402
from influence_transformers.packing import PackedLinear  # noqa: E402

from .conftest import make_model, make_tokenizer  # noqa: E402
from .plans import HEADS, LAYERS, plans, shape_of  # noqa: E402

SOURCE = "int twice(int x) { return 2 * x + MORE; }\n"


def attended(plan, shape, repeat, given, scale):
    """Return every layer's attention of a plan, by the kernels."""
    tables = Maker(shape, repeat, 0)
    made = tables.make(plan, [0] * plan.rows, [0] * plan.rows, [0])
    kernels = NativeAttention(library(shape.layers[0].key_dim), shape, HEADS * repeat, made, Room())
    return torch.stack([kernels.attend(layer, *given[layer], scale) for layer in range(LAYERS)])


@pytest.mark.parametrize("width", [16, 80, 128])
@settings(deadline=None, max_examples=25)
@given(data=st.data(), repeat=st.sampled_from([1, 3, 4, 7, 20]), scale=st.sampled_from([0.1, 0.3, 8.0]))
def test_attention_is_what_calls_of_torch_compute(width, data, repeat, scale):
    """Far apart scores are among them, where all but the highest vanish."""
    shape = shape_of(width)
    plan = data.draw(plans(shape))
    heads = HEADS * repeat
    given_rows = [
        (torch.randn(plan.rows, heads, width), torch.randn(plan.rows, HEADS, width), torch.randn(plan.rows, HEADS, width))
        for _ in range(LAYERS)
    ]  # fmt: skip
    found = attended(plan, shape, repeat, given_rows, scale)
    calls = Calls(plan, shape.device)
    expected = torch.stack([calls.attend(layer, *given_rows[layer], scale) for layer in range(LAYERS)])
    tolerance = 1e-4 if scale < 1 else 5e-3  # scores of hundreds are rounded to some millionths of that
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


@settings(deadline=None, max_examples=10)
@given(plan=plans(shape_of(16)))
def test_the_number_of_threads_changes_no_bit(plan):
    shape = shape_of(16)
    given_rows = [
        tuple(torch.randn(plan.rows, HEADS * of, 16) for of in (3, 1, 1)) for _ in range(LAYERS)
    ]  # fmt: skip
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            found.append(attended(plan, shape, 3, given_rows, 0.3))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def chat(text: str, system: str = "You are kind. " * 4) -> tuple[ChatMessage, ...]:
    return ChatMessage(role="system", content=system), ChatMessage(role="user", content=text)


async def answers(folder: Path, adapters=(None,), **options):
    """Return replies and probabilities of requests in one company, and what they were computed by."""
    backend = TransformersBackend(str(folder), TransformersOptions(dtype="float32", max_rows=48, **options))
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


def of_family(folder: Path, family: str) -> Path:
    """Write a tiny model of another family; its layers are those of its own code."""
    import transformers

    folder.mkdir()
    config = getattr(transformers, f"{family}Config")(
        vocab_size=make_tokenizer(folder, whole_numbers=True, template=CHATML), hidden_size=32, intermediate_size=96,
        num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=16, max_position_embeddings=2048,
        initializer_range=0.3, eos_token_id=0, pad_token_id=0, bos_token_id=0, tie_word_embeddings=False,
    )  # fmt: skip
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
    """The modules are named as usual, and only the trial tells: embeddings are multiplied on the way in."""
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
    return {path.name for path in (source.parent / "cache" / "compiled").iterdir()}


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


def test_a_cache_that_cannot_be_written_is_named(source, monkeypatch):
    monkeypatch.setenv("INFLUENCE_CACHE_DIR", str(source / "below-a-file"))
    with pytest.raises(CompileError, match="cannot be kept"):
        compiled(source, {})


@pytest.mark.parametrize(("how", "says"), [("none", "no C compiler"), ("fails", "fails: exit code 1")])
async def test_without_a_compiler_torch_computes(splitting, tmp_path, monkeypatch, caplog, how, says):
    expected, _, _ = await answers(splitting)
    library.cache_clear()
    monkeypatch.setenv("INFLUENCE_CACHE_DIR", str(tmp_path))
    if how == "none":
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.delenv("CC", raising=False)
    else:
        monkeypatch.setenv("CC", shutil.which("false") or os.devnull)
    with caplog.at_level(logging.WARNING, logger="influence_transformers"):
        found, _, runner = await answers(splitting)
    library.cache_clear()
    assert found == expected
    assert isinstance(runner, Runner)
    assert [says in record.message for record in caplog.records] == [True]
    assert any(isinstance(module, PackedLinear) for module in runner._model._model.modules())
