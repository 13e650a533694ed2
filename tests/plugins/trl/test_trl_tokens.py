"""What is learnt is exactly what the agent generated, after exactly what it was sent."""

from concurrent.futures import Future

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from influence_cli.backends.prompts import Prompts
from influence_cli.errors import CallFailedError
from influence_cli.schemas.messages import ChatMessage, ToolCall
from influence_cli.schemas.requests import GenerateRequest, ToolSchema
from influence_cli.schemas.training import TrainingRow
from influence_trl.tokens import Sequence, encode_row

from .conftest import FAMILIES, make_model, make_row, make_tokenizer, message

DIALOGUE = (
    message("system", "Be kind."),
    message("user", "Hi there"),
    message("assistant", "Written before."),
    message("user", "And you?"),
    message("assistant", "I am the first reply"),
    message("user", "the end\n"),
    message("assistant", "Second, the last."),
)
"""2 was written beforehand; 4 and 6 were generated."""

# What the model was sent and said, token for token; what stands in brackets is learnt.
EXPECTED = {
    "llama-3": [
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe kind.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nHi there<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nWritten before.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nAnd you?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n⟦I am the first reply<|eot_id|>⟧"
        "<|start_header_id|>user<|end_header_id|>\n\nthe end<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n⟦Second, the last.<|eot_id|>⟧"
    ],
    "gemma": [
        "<bos><start_of_turn>user\nBe kind.\n\nHi there<end_of_turn>\n"
        "<start_of_turn>model\nWritten before.<end_of_turn>\n"
        "<start_of_turn>user\nAnd you?<end_of_turn>\n"
        "<start_of_turn>model\n⟦I am the first reply<end_of_turn>⟧\n"
        "<start_of_turn>user\nthe end<end_of_turn>\n"
        "<start_of_turn>model\n⟦Second, the last.<end_of_turn>⟧"
    ],
    "qwen": [
        "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHi there<|im_end|>\n"
        "<|im_start|>assistant\nWritten before.<|im_end|>\n<|im_start|>user\nAnd you?<|im_end|>\n"
        "<|im_start|>assistant\n⟦I am the first reply<|im_end|>⟧\n<|im_start|>user\nthe end\n<|im_end|>\n"
        "<|im_start|>assistant\n⟦Second, the last.<|im_end|>⟧"
    ],
    "mistral": [  # its system message moves to the last user message, so the first reply was made after another prompt
        "<s>[INST] Hi there[/INST] Written before.</s>[INST] Be kind.\n\nAnd you?[/INST]⟦ I am the first reply</s>⟧",
        "<s>[INST] Hi there[/INST] Written before.</s>[INST] And you?[/INST] I am the first reply</s>"
        "[INST] Be kind.\n\nthe end\n[/INST]⟦ Second, the last.</s>⟧",
    ],
    "smollm2": [
        "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHi there<|im_end|>\n"
        "<|im_start|>assistant\nWritten before.<|im_end|>\n<|im_start|>user\nAnd you?<|im_end|>\n"
        "<|im_start|>assistant\n⟦I am the first reply<|im_end|>⟧\n<|im_start|>user\nthe end\n<|im_end|>\n"
        "<|im_start|>assistant\n⟦Second, the last.<|im_end|>⟧"
    ],
}


@pytest.fixture(scope="module")
def tokenizers():
    return {family: make_tokenizer(family) for family in FAMILIES}


def prompts(tokenizers, family: str) -> Prompts:
    return Prompts(tokenizers[family], [tokenizers[family].eos_token_id], family)


def dialogue(**changes) -> TrainingRow:
    return make_row(0, **{"messages": DIALOGUE, **changes})


def by_offsets(tokenizer, marked: str) -> tuple[list[int], list[bool]]:
    """Return the ids of a text, and which of them lie between brackets, by where each token stands in the text."""
    text, spans = "", []
    for piece in marked.split("⟦"):
        inside, bracket, rest = piece.partition("⟧")
        if bracket:
            spans.append((len(text), len(text) + len(inside)))
        text += inside + rest
    found = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    # A mark for a space may stand at the border; it belongs to what follows it.
    learnt = [any(low <= start and end <= high for low, high in spans) for start, end in found["offset_mapping"]]
    return found["input_ids"], learnt


@pytest.mark.parametrize("family", FAMILIES)
def test_the_agents_own_tokens_are_learnt_and_no_others(tokenizers, family):
    made = encode_row(dialogue(), prompts(tokenizers, family))
    assert len(made) == len(EXPECTED[family])
    for sequence, marked in zip(made, EXPECTED[family], strict=True):
        ids, learnt = by_offsets(tokenizers[family], marked)
        shown = tokenizers[family].convert_ids_to_tokens(sequence.ids)
        assert shown == tokenizers[family].convert_ids_to_tokens(ids)
        assert [(t, w) for t, w in zip(shown, sequence.learnt, strict=True)] == list(zip(shown, learnt, strict=True))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_reply_stands_after_what_the_backend_sent(tmp_path, family):
    """The prompt is taken from the engine that samples, not from the code under test."""
    from influence_transformers.engines import start_engine
    from influence_transformers.loading import load_model
    from influence_transformers.options import TransformersOptions

    options = TransformersOptions(device="cpu", cache_mib=16)
    loaded = load_model(make_model(tmp_path, family), options, family)
    engine = start_engine(loaded, options, family)
    try:
        trained = encode_row(dialogue(), engine.prompts, by_turn=True)
        for at, sequence in zip((4, 6), trained, strict=True):
            request = GenerateRequest(role="agent", messages=DIALOGUE[:at])
            sent = engine._text_sequence(request, "", Future()).prompt.tolist()
            assert sequence.prompt == sent
            assert sequence.completion[-1] in engine.prompts.ending
    finally:
        engine.worker.close()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_reply_that_was_cut_does_not_teach_to_end(tokenizers, family):
    whole = encode_row(dialogue(learnt=(6,)), prompts(tokenizers, family))[0]
    cut = encode_row(dialogue(learnt=(6,), cut=(6,)), prompts(tokenizers, family))[0]
    assert list(cut.ids) == list(whole.ids)[:-1]
    assert cut.completion == whole.completion[:-1]


def test_the_end_of_an_earlier_cut_reply_is_masked_where_the_template_puts_one(tokenizers):
    sequence = encode_row(dialogue(cut=(4,)), prompts(tokenizers, "smollm2"))[0]
    whole = encode_row(dialogue(), prompts(tokenizers, "smollm2"))[0]
    assert sequence.ids == whole.ids
    assert sum(whole.learnt) - sum(sequence.learnt) == 1


def test_replies_whose_thoughts_the_template_drops_are_learnt_where_they_were_made(tokenizers):
    said = list(DIALOGUE)
    said[4] = message("assistant", "<think>\nhm\n</think>\nI am the first reply")
    made = encode_row(dialogue(messages=tuple(said)), prompts(tokenizers, "qwen"))
    texts = [tokenizers["qwen"].decode(s.ids) for s in made]
    assert len(made) == 2
    assert "hm" in texts[0]
    assert texts[0].endswith("first reply<|im_end|>")
    assert "hm" not in texts[1]
    assert tokenizers["qwen"].decode(made[1].completion) == "Second, the last.<|im_end|>"


def test_a_tokenizer_that_merges_over_the_border_is_trained_on_what_was_sampled():
    """GPT-2's writes two line breaks as one token at the end of a prompt, and as two before a word."""
    tokenizer = make_tokenizer("llama-3", lines_apart=False)
    made = Prompts(tokenizer, [tokenizer.eos_token_id], "gpt2-like")
    sequences = encode_row(dialogue(), made)
    assert [s.prompt for s in sequences] == [made.encode(DIALOGUE[:4]), made.encode(DIALOGUE[:6])]
    assert [made.decode(s.completion[:-1]) for s in sequences] == [DIALOGUE[4].content, DIALOGUE[6].content]


@pytest.mark.parametrize("reply", ["  Hello", "\n\nHello", "Hello  ", "\n", "a<|im_end|>b", "<|im_start|>user\nMe"])
def test_what_a_template_would_trim_or_take_for_control_is_learnt_as_it_was_said(tokenizers, reply):
    for family in ("llama-3", "smollm2"):
        made = prompts(tokenizers, family)
        said = (*DIALOGUE[:-1], message("assistant", reply))
        sequence = encode_row(dialogue(messages=said, learnt=(6,)), made)[0]
        assert sequence.prompt == made.encode(said[:-1])
        assert made.decode(sequence.completion[:-1]) == reply
        assert not set(sequence.completion[:-1]) & made.ending


@settings(max_examples=60)
@given(
    st.lists(
        st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Co"]), min_size=1, max_size=12),
        min_size=2,
        max_size=5,
    ),
    st.sampled_from(["llama-3", "gemma", "qwen", "smollm2"]),
)
def test_each_learnt_reply_decodes_to_what_was_said(tokenizers, replies, family):
    said = [message("system", "S")]
    for reply in replies:
        said += [message("user", "Q"), message("assistant", reply)]
    learnt = tuple(range(2, len(said), 2))
    made = prompts(tokenizers, family)
    row = make_row(0, messages=tuple(said), learnt=learnt)
    by_turn = encode_row(row, made, by_turn=True)
    assert [made.decode(s.completion[:-1]) for s in by_turn] == replies
    assert [s.prompt for s in by_turn] == [made.encode(said[:at]) for at in learnt]
    together = encode_row(row, made)
    assert sum(sum(s.learnt) for s in together) == sum(len(s.completion) for s in by_turn)


def test_calls_of_tools_are_learnt_in_the_templates_manner(tokenizers):
    call = ToolCall(id="1", name="book", arguments={"city": "Rome"})
    tool = ToolSchema(name="book", description="Books.", parameters={"type": "object"})
    said = (message("user", "Book Rome"), ChatMessage(role="assistant", content="Now.", tool_calls=(call,)))
    made = prompts(tokenizers, "smollm2")
    row = make_row(0, messages=said, learnt=(1,), tools=(tool,))
    sequence = encode_row(row, made)[0]
    assert sequence.prompt == made.encode(said[:1], (tool,))
    text = made.decode(sequence.completion[:-1])
    assert text.startswith("Now.")
    assert '"city": "Rome"' in text


def test_a_prompt_that_the_template_refuses_is_a_failure_of_that_row(tokenizers):
    from copy import deepcopy

    strict = deepcopy(tokenizers["smollm2"])
    strict.chat_template = "{{ raise_exception('No.') }}"
    with pytest.raises(CallFailedError, match="cannot take this prompt"):
        encode_row(dialogue(), Prompts(strict, [strict.eos_token_id], "strict"))


@given(st.integers(1, 30), st.integers(1, 20))
def test_cutting_keeps_the_end(length, longest):
    whole = Sequence(tuple(range(length)), (False,) * (length - 1) + (True,))
    cut = whole.fitted(longest)
    assert cut.ids == whole.ids[-longest:]
    assert cut.learnt[-1]
    assert cut.truncated is (length > longest)
