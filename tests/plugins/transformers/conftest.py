"""Tiny models with random weights, made in seconds, and the real small one, found as the product finds it."""

import json
import os
import warnings
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
ALTERNATING = (
    "{% for m in messages %}"
    "{% if m['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Roles must alternate') }}{% endif %}"
    "<|im_start|>{{ 'model' if m['role'] == 'assistant' else 'user' }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>model\n{% endif %}"
)


def make_tokenizer(folder: Path, *, whole_numbers: bool, template: str) -> int:
    """Write a byte-level tokenizer that splits "10" in two tokens, or does not; return its size."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("1", "0"), ("t", "h"), ("e", "s")] if whole_numbers else [("t", "h")]
    vocab = {token: i for i, token in enumerate([*letters, *("".join(pair) for pair in merges)])}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", additional_special_tokens=["<|im_start|>"]
    )
    fast.chat_template = template
    fast.save_pretrained(folder)
    return len(fast)


def make_model(
    folder: Path, *, whole_numbers: bool = False, template: str = CHATML, seed: int = 0, **config: Any
) -> Path:
    """Write a tiny Llama with random weights and its tokenizer into ``folder``."""
    from transformers import LlamaConfig, LlamaForCausalLM

    folder.mkdir(parents=True, exist_ok=True)
    size = make_tokenizer(folder, whole_numbers=whole_numbers, template=template)
    torch.manual_seed(seed)
    shape = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "head_dim": 16,
    }
    settings = {
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        "tie_word_embeddings": True,
        **shape,
        **config,
    }
    model = LlamaForCausalLM(LlamaConfig(vocab_size=size, initializer_range=0.3, **settings))
    model.generation_config.eos_token_id = json.loads((folder / "tokenizer.json").read_text())["added_tokens"][0]["id"]
    model.config.eos_token_id = model.generation_config.eos_token_id
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session", autouse=True)
def interpreted():
    """With TRITON_INTERPRET=1 everything here goes through the GPU's kernels, interpreted (`nox -s kernels`)."""
    from influence_transformers.engine import tabled

    with pytest.MonkeyPatch.context() as patch:
        if os.environ.get("TRITON_INTERPRET") == "1":
            patch.setattr(tabled, "DEVICES", ("cuda", "cpu"))
        yield


@pytest.fixture(scope="session")
def splitting(tmp_path_factory) -> Path:
    """A model whose tokenizer splits "10"."""
    return make_model(tmp_path_factory.mktemp("splitting"))


@pytest.fixture(scope="session")
def whole(tmp_path_factory) -> Path:
    """A model whose tokenizer has "10" as one token."""
    return make_model(tmp_path_factory.mktemp("whole"), whole_numbers=True, seed=1)


@pytest.fixture(scope="session")
def adapters(tmp_path_factory, splitting) -> list[Path]:
    """Two LoRA folders for the splitting model, with random weights that matter."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    folders = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        base = AutoModelForCausalLM.from_pretrained(splitting)
        dropping = {"lora_dropout": 0.5}  # in training; nothing may be dropped when it answers
        lora = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False, **dropping)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers by an older name
            model = get_peft_model(base, lora)
        folders.append(tmp_path_factory.mktemp("adapter") / f"a{seed}")
        model.save_pretrained(folders[-1])
    return folders


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The embedded default, fetched and converted once."""
    from influence_transformers.smollm2 import fetch

    return fetch()
