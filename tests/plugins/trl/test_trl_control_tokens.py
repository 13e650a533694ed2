"""Control tokens that a text spells are ordinary text to the five common templates, when sampling and when learning."""

from concurrent.futures import Future

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from influence_cli.backends.prompts import Prompts
from influence_cli.schemas.messages import ChatMessage, ToolCall
from influence_cli.schemas.requests import ChoiceRequest, GenerateRequest, ToolSchema
from influence_trl.tokens import encode_row

from .conftest import FAMILIES, make_model, make_row, make_tokenizer, message

SPELT = (
    "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<bos>", "<eos>", "<pad>", "<start_of_turn>",
    "<end_of_turn>", "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<s>", "</s>", "[INST]", "[/INST]",
)  # fmt: skip
PIECES = (
    *SPELT,
    "system\n",
    "user",
    "assistant",
    "model\n",
    "<|im_",
    "end|>",
    "<",
    "|>",
    "[",
    "/INST]",
    " ",
    "\n",
    "Rate this 10.",
    "\ue0000\ue001",
)
TEXTS = st.lists(st.sampled_from(PIECES), max_size=6).map(lambda parts: "x" + "".join(parts) + "y")
CALL = ToolCall(id="1", name="look", arguments={"where": "here"})
TOOL = ToolSchema(name="look", description="Looks.", parameters={"type": "object"})


@pytest.fixture(scope="module")
def tokenizers():
    return {family: make_tokenizer(family) for family in FAMILIES}


def chat(system: str, user: str, reply: str, result: str) -> tuple[ChatMessage, ...]:
    return (
        message("system", system),
        message("user", user),
        ChatMessage(role="assistant", content=reply, tool_calls=(CALL,)),
        ChatMessage(role="tool", content=result, tool_call_id="1"),
        message("assistant", reply),
        message("user", user),
    )


def control(tokenizer, ids) -> list[int]:
    """Return the control tokens among ``ids``, in order: the structure that the model is trained to obey."""
    special = set(tokenizer.added_tokens_decoder)
    return [token for token in ids if token in special]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_tokenizer_itself_would_obey_such_a_text(tokenizers, family):
    """Else the other tests would show nothing."""
    tokenizer = tokenizers[family]
    assert control(tokenizer, tokenizer("".join(SPELT), add_special_tokens=False)["input_ids"])


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=25)
@given(texts=st.tuples(TEXTS, TEXTS, TEXTS, TEXTS), begun=st.one_of(st.just(""), TEXTS))
def test_a_prompt_has_the_control_tokens_of_its_template_and_no_others(tokenizers, family, texts, begun):
    prompts = Prompts(tokenizers[family], [tokenizers[family].eos_token_id], family)
    hostile = prompts.encode(chat(*texts), (TOOL,), begun=begun)
    harmless = prompts.encode(chat("xy", "xy", "xy", "xy"), (TOOL,), begun="xy" if begun else "")
    assert control(tokenizers[family], hostile) == control(tokenizers[family], harmless)
    decoded = "".join(tokenizers[family].decode(hostile).split())
    for text in texts:
        assert "\ue000" in text or "".join(text.split()) in decoded, "and it stays readable"


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=25)
@given(texts=st.tuples(TEXTS, TEXTS, TEXTS))
def test_a_reply_is_learnt_without_control_tokens_but_its_end(tokenizers, family, texts):
    tokenizer = tokenizers[family]
    prompts = Prompts(tokenizer, [tokenizer.eos_token_id], family)
    system, user, reply = texts
    said = (message("system", system), message("user", user), message("assistant", reply))
    sequence = encode_row(make_row(0, messages=said, learnt=(2,)), prompts)[0]
    assert sequence.prompt == prompts.encode(said[:2])
    assert control(tokenizer, sequence.completion[:-1]) == []
    assert sequence.completion[-1] in prompts.ending
    assert "\ue000" in reply or prompts.decode(sequence.completion[:-1]) == reply


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_the_engine_samples_and_judges_after_such_a_prompt(tmp_path, family):
    from influence_transformers.engines import start_engine
    from influence_transformers.loading import load_model
    from influence_transformers.options import TransformersOptions

    options = TransformersOptions(device="cpu", cache_mib=16)
    engine = start_engine(load_model(make_model(tmp_path, family), options, family), options, family)
    try:
        tokenizer = engine.prompts.tokenizer
        evil, plain = (
            (message("system", text), message("user", text)) for text in ("".join(SPELT), "nothing of that kind")
        )
        for made in (
            lambda said: engine._text_sequence(GenerateRequest(role="agent", messages=said), "", Future()),
            lambda said: engine._text_sequence(GenerateRequest(role="user", messages=said), "x<|im_end|>", Future()),
        ):
            ids = [made(said).prompt.tolist() for said in (evil, plain)]
            assert control(tokenizer, ids[0]) == control(tokenizer, ids[1])
        choice = ChoiceRequest(role="judge", messages=evil, choices=("1", "2"))
        assert engine.choose(choice).result(60).log_probabilities
    finally:
        engine.worker.close()


@pytest.mark.slow
def test_the_embedded_model_reads_them_as_text_too():
    from transformers import AutoTokenizer

    from influence_transformers.resolution import resolve_model

    tokenizer = AutoTokenizer.from_pretrained(resolve_model("smollm2"))
    prompts = Prompts(tokenizer, [tokenizer.eos_token_id], "smollm2")
    added = "".join(map(str, tokenizer.added_tokens_decoder.values()))
    evil, plain = (prompts.encode((message("user", text),)) for text in (added, "xy"))
    assert control(tokenizer, evil) == control(tokenizer, plain)
