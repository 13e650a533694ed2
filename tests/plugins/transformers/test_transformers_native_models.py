"""Whole models by the kernels: they answer as the models' own code does, in any company, or torch computes."""

import asyncio
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
if shutil.which("cc") is None:
    pytest.skip("there is no C compiler", allow_module_level=True)

from influence_cli.schemas.messages import ChatMessage  # noqa: E402
from influence_cli.schemas.requests import ChoiceRequest, GenerateRequest, Sampling  # noqa: E402
from influence_transformers.backend import TransformersBackend  # noqa: E402
from influence_transformers.engine.forward import Runner  # noqa: E402
from influence_transformers.loading import load_model  # noqa: E402
from influence_transformers.native.library import _tried as libraries  # noqa: E402
from influence_transformers.native.passes import NativeRunner  # noqa: E402
from influence_transformers.options import TransformersOptions  # noqa: E402
from influence_transformers.packing import PackedLinear  # noqa: E402

from .conftest import make_model, make_tokenizer  # noqa: E402


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
