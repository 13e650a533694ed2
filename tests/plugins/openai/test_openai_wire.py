"""Answers of other shapes than expected."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from influence_cli.errors import CallFailedError
from influence_cli.schemas.messages import ChatMessage
from influence_cli.schemas.requests import GenerateRequest, Sampling
from influence_openai.wire import Spent, read_choices, read_generation, read_positions, read_text

ASK = GenerateRequest(
    role="agent", messages=(ChatMessage(role="user", content="Hi."),), sampling=Sampling(max_tokens=5)
)


def answer(content=None, finish="stop", **message):
    return {"choices": [{"message": {"content": content} | message, "finish_reason": finish}]}


def call(arguments='{"a": 1}', **more):
    return [{"function": {"name": "tool", "arguments": arguments}} | more]


def test_a_refusal_is_an_answer():
    found = read_generation(answer(refusal="I will not."), ASK)
    assert (found.text, found.finish_reason) == ("I will not.", "refused")


def test_a_filtered_text_is_kept_and_marked():
    assert read_generation(answer("Half a", "content_filter"), ASK).finish_reason == "refused"


def test_content_in_parts_is_joined():
    parts = [{"type": "text", "text": "Hel"}, {"type": "image"}, {"type": "text", "text": "lo"}, "x"]
    assert read_generation(answer(parts), ASK).text == "Hello"


def test_a_model_that_only_thought_says_why_it_is_empty():
    with pytest.raises(CallFailedError, match="thinks first") as caught:
        read_generation(answer("", "length"), ASK)
    assert caught.value.kind == "empty"


def test_an_absurdly_long_text_is_a_failure():
    with pytest.raises(CallFailedError, match="30000 characters") as caught:
        read_generation(answer("x" * 30_000), ASK)
    assert caught.value.kind == "too_long"


def test_tool_calls_without_identifiers_get_one():
    found = read_generation(answer(None, tool_calls=call()), ASK)
    assert (found.tool_calls[0].id, found.tool_calls[0].arguments, found.text) == ("call_0", {"a": 1}, "")


@pytest.mark.parametrize(("arguments", "read"), [("", {}), (None, {}), ({"a": 2}, {"a": 2})])
def test_arguments_come_in_several_forms(arguments, read):
    assert read_generation(answer(None, tool_calls=call(arguments)), ASK).tool_calls[0].arguments == read


@pytest.mark.parametrize("calls", [call("{broken"), call("[1]"), [{}], [3], 7, [{"function": {"name": None}}]])
def test_tool_calls_that_cannot_be_read_are_malformed(calls):
    with pytest.raises(CallFailedError) as caught:
        read_generation(answer(None, tool_calls=calls), ASK)
    assert caught.value.kind == "malformed"


@pytest.mark.parametrize("body", [{}, {"choices": []}, {"choices": [3]}, {"error": {"message": "x"}}, {"choices": {}}])
def test_no_choices_are_malformed(body):
    with pytest.raises(CallFailedError, match="no choices"):
        read_choices(body)


@pytest.mark.parametrize("choice", [{}, {"message": None}, {"message": {"content": 3}}])
def test_no_text_is_malformed(choice):
    with pytest.raises(CallFailedError) as caught:
        read_text(choice)
    assert caught.value.kind == "malformed"


@pytest.mark.parametrize(
    "logprobs",
    [None, {}, {"content": None}, {"content": [{"token": "a", "top_logprobs": []}]}, {"content": [{"token": "a"}]}],
)
def test_missing_logprobs_are_missing(logprobs):
    assert read_positions({"logprobs": logprobs}) is None


@pytest.mark.parametrize("entry", [3, {"token": "a", "top_logprobs": [{}]}, {"top_logprobs": []}])
def test_broken_logprobs_are_malformed(entry):
    with pytest.raises(CallFailedError):
        read_positions({"logprobs": {"content": [entry]}})


@given(st.recursive(st.none() | st.integers() | st.text(max_size=5), lambda x: st.dictionaries(st.text(max_size=5), x)))
def test_any_usage_is_read(usage):
    spent = Spent()
    spent.add({"usage": usage}, 100)
    assert spent.usage().prompt_tokens >= 0


def test_usage_counts_what_was_cached():
    spent = Spent()
    counts = {"prompt_tokens": 9, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 4}}
    spent.add({"usage": counts}, 100)
    spent.add({"usage": {"prompt_tokens": 1, "completion_tokens": "x", "prompt_tokens_details": None}}, 100)
    usage = spent.usage()
    assert (usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens) == (10, 2, 4)


@pytest.mark.parametrize("absurd", [10**15, 2**63, -5, 1.5, False, "7", None])
def test_an_absurd_token_count_is_no_count(absurd):
    spent = Spent()
    spent.add({"usage": {"prompt_tokens": 8, "completion_tokens": absurd}}, 100)
    assert (spent.prompt, spent.completion, spent.estimated) == (8, 0, False)
    spent.add({"usage": {"prompt_tokens": absurd}, "choices": [{"message": {"content": "x" * 40}}, 3]}, 100)
    assert (spent.prompt, spent.completion, spent.estimated) == (8 + 25, 10, True)
