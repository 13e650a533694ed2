"""What a training run takes, from the sizes that a model's own files tell."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from influence_cli.training.estimate import memory_need
from influence_cli.training.shapes import KNOWN, find_shape

LLAMA = {
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "intermediate_size": 14336,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
}


@pytest.fixture
def hub(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "models--some--model" / "snapshots" / "abc"
    folder.mkdir(parents=True)
    return folder


def test_a_folder_or_the_hubs_cache_tells_the_shape(hub):
    (hub / "config.json").write_text(json.dumps(LLAMA))
    known = KNOWN["meta-llama/Meta-Llama-3-8B-Instruct"]
    assert find_shape(str(hub)) == known
    assert find_shape("some/model") == known
    assert known.parameters == pytest.approx(8.03e9, rel=0.001)


def test_a_model_of_text_and_images_tells_the_shape_of_its_text_part(hub):
    (hub / "config.json").write_text(
        json.dumps({"text_config": {**LLAMA, "head_dim": 256, "tie_word_embeddings": True}})
    )
    found = find_shape("some/model")
    assert (found.head, found.tied) == (256, True)


@pytest.mark.parametrize("text", ["", "[]", '{"hidden_size": "wide"}', "{}"])
def test_a_file_that_tells_no_shape_is_no_error(hub, text):
    (hub / "config.json").write_text(text)
    assert find_shape("some/model") is None


def test_a_model_that_is_nowhere_has_no_shape(hub):
    assert find_shape("nobody/nothing") is None


@given(
    st.sampled_from(sorted(KNOWN)),
    st.integers(1, 8),
    st.integers(1, 8),
    st.sampled_from([256, 1024, 4096]),
    st.integers(1, 64),
)
def test_more_rows_longer_rows_and_higher_ranks_take_more_memory(name, rows, more, length, rank):
    shape = KNOWN[name]
    small = {"micro_batch": rows, "max_length": length, "lora_r": rank}
    base = memory_need(shape, small)
    assert memory_need(shape, {**small, "micro_batch": rows + more}).total > base.total
    assert memory_need(shape, {**small, "max_length": length + more}).total > base.total
    assert memory_need(shape, {**small, "lora_r": rank + more}).total > base.total
    assert memory_need(shape, {**small, "gradient_checkpointing": False}).total > base.total
    assert memory_need(shape, {**small, "quantize": "4bit"}).weights < base.weights / 3
