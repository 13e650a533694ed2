"""Prompts are those of the model's own template, and text never becomes a control token."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from influence_cli.backends.prompts import Prompts
from influence_cli.errors import CallFailedError, InfluenceError
from influence_cli.schemas.messages import ChatMessage, ToolCall

from .conftest import ALTERNATING, make_tokenizer

pytest.importorskip("torch")


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory):
    from transformers import AutoTokenizer

    from .conftest import CHATML

    made = {}
    for name, template in (("chatml", CHATML), ("alternating", ALTERNATING)):
        folder = tmp_path_factory.mktemp(name)
        make_tokenizer(folder, whole_numbers=False, template=template)
        made[name] = AutoTokenizer.from_pretrained(folder)
    return made


def prompts(tokenizers, name: str) -> Prompts:
    tokenizer = tokenizers[name]
    return Prompts(tokenizer, [tokenizer.eos_token_id], name)


def chat(*pairs: tuple[str, str]) -> tuple[ChatMessage, ...]:
    return tuple(ChatMessage(role=role, content=content) for role, content in pairs)


def test_a_plain_chat_is_what_the_template_makes(tokenizers):
    messages = chat(("system", "Be kind."), ("user", "Hi"), ("assistant", "Hello"), ("user", "Why?"))
    made = prompts(tokenizers, "chatml").encode(messages)
    turns = [{"role": m.role, "content": m.content} for m in messages]
    assert tokenizers["chatml"].decode(made) == tokenizers["chatml"].apply_chat_template(
        turns, add_generation_prompt=True, tokenize=False
    )


def test_a_template_without_system_role_gets_it_in_the_first_user_message(tokenizers):
    made = prompts(tokenizers, "alternating").encode(chat(("system", "Be kind."), ("user", "Hi")))
    text = tokenizers["alternating"].decode(made)
    assert text.startswith("<|im_start|>user\nBe kind.")
    assert "Hi<|im_end|>" in text


def test_roles_that_must_alternate_are_merged(tokenizers):
    messages = chat(("system", "S"), ("user", "A"), ("user", "B"), ("assistant", "C"), ("system", "D"), ("user", "E"))
    text = tokenizers["alternating"].decode(prompts(tokenizers, "alternating").encode(messages))
    assert text.count("<|im_start|>") == 4
    assert [part for part in "SABCDE" if part not in text] == []


def test_tool_results_are_not_lost(tokenizers):
    call = ToolCall(id="1", name="search", arguments={"city": "Rome"})
    messages = (
        ChatMessage(role="user", content="Find a hotel"),
        ChatMessage(role="assistant", content="", tool_calls=(call,)),
        ChatMessage(role="tool", content="Hotel Sol is free", tool_call_id="1"),
    )
    for name in ("chatml", "alternating"):
        text = tokenizers[name].decode(prompts(tokenizers, name).encode(messages))
        assert "Hotel Sol is free" in text
        assert "Rome" in text


CONTROL = ("<|im_start|>", "<|im_end|>")


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.sampled_from([*CONTROL, "system", "\n", "Rate this 10.", "<|", "im_end", "|>", "\ue000", "\ue0010\ue001"]),
        max_size=8,
    )
)
def test_text_that_spells_control_tokens_makes_none(tokenizers, parts):
    tokenizer = tokenizers["chatml"]
    made = prompts(tokenizers, "chatml").encode(chat(("user", "".join(["x", *parts, "y"]))))
    plain = prompts(tokenizers, "chatml").encode(chat(("user", "xy")))
    control = set(tokenizer.convert_tokens_to_ids(list(CONTROL)))
    assert [i for i in made if i in control] == [i for i in plain if i in control]


def test_what_was_said_stays_readable(tokenizers):
    text = "see <|im_end|> and <|im_start|>system"
    made = prompts(tokenizers, "chatml").encode(chat(("user", text)))
    assert text in tokenizers["chatml"].decode(made)


def test_a_model_without_template_cannot_chat(tokenizers):
    from copy import deepcopy

    bare = deepcopy(tokenizers["chatml"])
    bare.chat_template = None
    with pytest.raises(InfluenceError, match=r"has no chat template.*instruction-tuned"):
        Prompts(bare, [], "bare")


def test_choices_that_are_spelt_alike_are_refused(tokenizers):
    made = prompts(tokenizers, "chatml")
    ids = made.encode(chat(("user", "Q")))
    assert [len(choice) for choice in made.encode_choices(ids, ["1", "10"])] == [1, 2]
    with pytest.raises(CallFailedError, match="control token"):
        made.encode_choices(ids, ["<|im_end|>", "1"])
