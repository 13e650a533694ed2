"""Tiny random models with tokenizers made here, and rows to train them on."""

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from influence_cli.schemas.messages import ChatMessage
from influence_cli.schemas.training import TrainingJob, TrainingPair, TrainingRow

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

TEMPLATES = Path(__file__).parents[2] / "fixtures" / "chat-templates"
FAMILIES: dict[str, dict[str, Any]] = {
    "llama-3": {"bos": "<|begin_of_text|>", "eos": "<|eot_id|>", "more": ["<|start_header_id|>", "<|end_header_id|>"]},
    "gemma": {"bos": "<bos>", "eos": "<eos>", "more": ["<start_of_turn>", "<end_of_turn>"], "pad": "<pad>"},
    "qwen": {"eos": "<|im_end|>", "more": ["<|im_start|>"], "pad": "<|endoftext|>"},
    "mistral": {"bos": "<s>", "eos": "</s>", "more": ["[INST]", "[/INST]"], "spaced": True},
    "smollm2": {"eos": "<|im_end|>", "more": ["<|im_start|>"]},
}


def byte_level(*, lines_apart: bool = True) -> Any:
    """Return a tokenizer of bytes with a few merges, as Llama 3, Qwen and SmolLM have it.

    With ``lines_apart``, as theirs do, it keeps line breaks together whatever follows; GPT-2's does not.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("t", "h"), ("th", "e"), ("Ċ", "Ċ"), ("o", "u"), ("Ġ", "y")]
    vocab = {token: i for i, token in enumerate([*letters, *("".join(pair) for pair in merges)])}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    if lines_apart:
        words = pre_tokenizers.Split(Regex(r"\s*[\r\n]+|\s+(?!\S)| ?[^\s]+|\s+"), "isolated")
        bytes_only = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, bytes_only])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def spaced() -> Any:
    """Return a tokenizer that writes spaces as marks and puts one before a text, as Mistral's does."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    letters = ["\u2581", *(chr(n) for n in range(33, 127)), "\n", "é"]
    merges = [("t", "h"), ("\u2581", "y")]
    vocab = {token: i for i, token in enumerate([*letters, *("".join(pair) for pair in merges)])}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="first")
    return tokenizer


def make_tokenizer(family: str, *, lines_apart: bool = True) -> Any:
    from transformers import PreTrainedTokenizerFast

    parts = FAMILIES[family]
    fast = PreTrainedTokenizerFast(
        tokenizer_object=spaced() if parts.get("spaced") else byte_level(lines_apart=lines_apart),
        bos_token=parts.get("bos"),
        eos_token=parts["eos"],
        pad_token=parts.get("pad"),
        additional_special_tokens=parts["more"],
    )
    fast.chat_template = (TEMPLATES / f"{family}.jinja").read_text()
    return fast


def make_model(folder: Path, family: str = "smollm2", seed: int = 0, **config: Any) -> Path:
    """Write a Llama of two layers with random weights and its tokenizer into ``folder``."""
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = make_tokenizer(family)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(seed)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    settings = {
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        "tie_word_embeddings": True,
        **shape,
        **config,
    }
    made = LlamaConfig(
        vocab_size=len(tokenizer), initializer_range=0.3, eos_token_id=tokenizer.eos_token_id, **settings
    )
    LlamaForCausalLM(made).save_pretrained(folder)
    return folder


def message(role: str, content: str) -> ChatMessage:
    return ChatMessage(role=role, content=content)


def make_row(number: int, *, samples: int = 4, learnt: Sequence[int] = (4, 6), **changes: Any) -> TrainingRow:
    """Return a conversation with a pre-written reply (2) and two of the agent's own (4, 6)."""
    said = (
        message("system", "Be kind."),
        message("user", f"Hello, I am number {number}."),
        message("assistant", "A reply written beforehand."),
        message("user", "Can you help me?"),
        message("assistant", "Of course, tell me the rest."),
        message("user", "I am tired."),
        message("assistant", f"Then sleep, number {number}. " + "Rest well. " * (number % 3)),
    )
    fields: dict[str, Any] = {
        "episode_id": number,
        "environment": "tiny",
        "scenario": "talk",
        "initial_state": str(number // samples),
        "sample": number % samples,
        "turn": 3,
        "messages": said,
        "learnt": tuple(learnt),
        "reward": float(number % samples),
        "turn_reward": float(number % samples),
        "desirable": number % samples >= samples // 2,
    }
    return TrainingRow(**{**fields, **changes})


def make_rows(count: int) -> list[TrainingRow]:
    return [make_row(number) for number in range(count)]


def make_pairs(count: int) -> list[TrainingPair]:
    return [TrainingPair(chosen=make_row(4 * n + 3), rejected=make_row(4 * n)) for n in range(count)]


def rows_for(algorithm: str, count: int) -> list[TrainingRow] | list[TrainingPair]:
    if algorithm == "dpo":
        return make_pairs(count // 2)
    rows = make_rows(count)
    return [row for row in rows if row.desirable] if algorithm == "expert-iteration" else rows


MakeJob = Callable[..., TrainingJob]


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> Path:
    return make_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def make_job(tmp_path, model) -> MakeJob:
    """Return a function that writes rows down and makes the job of learning them."""

    def make(rows: Sequence[Any], name: str = "stage", **changes: Any) -> TrainingJob:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        file = folder / "rows.jsonl"
        file.write_text("\n".join(row.model_dump_json() for row in rows))
        fields = {"iteration": 0, "base": f"transformers:{model}", "rows": str(file), "folder": str(folder), "seed": 1}
        return TrainingJob(**{**fields, **changes})

    return make


FAST = {"threads": 1, "learning_rate": 1e-2, "batch": 4, "micro_batch": 2, "device": "cpu"}
"""Options under which a few rows move a tiny model, in a second."""


def train_here(algorithm: str, job: TrainingJob, *, stopping=lambda: False, told=lambda *_: None, **options: Any):
    """Return what comes of a job, trained in this process."""
    from influence_cli.api import write_whole
    from influence_trl.algorithms import OPTIONS
    from influence_trl.stage import Finished, Stage, StageFolder, fingerprint_of
    from influence_trl.training import train

    made = OPTIONS[algorithm](**{**FAST, **options})
    stage = Stage(
        algorithm=algorithm,
        options=made.model_dump(mode="json"),
        job=job,
        model=job.base.partition(":")[2],
        micro_batch=made.micro_batch,
        fingerprint=fingerprint_of(algorithm, made, job),
    )
    folder = StageFolder(job.folder)
    folder.prepare(stage)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TRL and PEFT use what transformers calls deprecated
        outcome = train(stage, made, told, stopping)
    write_whole(folder.finished, Finished(fingerprint=stage.fingerprint, outcome=outcome).model_dump_json().encode())
    return outcome
