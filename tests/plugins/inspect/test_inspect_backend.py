"""Inspect's providers as a backend: conformance, closed questions, failures."""

import pytest

pytest.importorskip("inspect_ai", reason="inspect-ai is not installed: pip install 'influence-cli[inspect]'")

from inspect_ai.model import ChatMessageAssistant, ChatMessageSystem, ChatMessageTool, ChatMessageUser
from inspect_ai.tool import ToolCall as InspectToolCall

from influence_cli.errors import CallFailedError, InfluenceError
from influence_cli.schemas.messages import ChatMessage, ToolCall
from influence_cli.schemas.requests import ChoiceRequest, GenerateRequest, Sampling, ToolSchema
from influence_cli.testing.backends import BackendConformance
from influence_inspect.backend import InspectBackend
from influence_inspect.options import InspectOptions

DIGITS = tuple(str(number) for number in range(1, 11))


def talkative(answer):
    """Words as many as allowed; a bare number where a number is asked for."""

    def reply(messages, tools, choice, config):
        if "whole number" in messages[-1].text:
            return answer("7")
        return answer(" ".join(["word"] * min(config.max_tokens, 8)))

    return reply


class TestBySamples(BackendConformance):
    @pytest.fixture
    async def backend(self, make_backend, answer):
        backend = make_backend(talkative(answer))
        yield backend
        await backend.aclose()


class TestByLogprobs(BackendConformance):
    @pytest.fixture
    async def backend(self, make_backend, answer):
        shown = {"7": 0.6, "8": 0.3, "Well": 0.1}

        def reply(messages, tools, choice, config):
            if config.logprobs:
                return answer("7", logprobs=[("7", shown), ("</s>", {"</s>": 0.99})])
            return talkative(answer)(messages, tools, choice, config)

        backend = make_backend(reply)
        yield backend
        await backend.aclose()


def ask(text="Hi", **more):
    return GenerateRequest(role="agent", messages=(ChatMessage(role="user", content=text),), **more)


def question(choices=DIGITS, **more):
    prompt = (ChatMessage(role="user", content="Answer only with a whole number from 1 to 10."),)
    return ChoiceRequest(role="preference", messages=prompt, choices=choices, **more)


async def test_log_probabilities_are_read_and_what_falls_outside_is_kept_as_mass(make_backend, answer):
    shown = {"7": 0.6, "8": 0.3, "Well": 0.1}
    backend = make_backend(lambda *given: answer("7", logprobs=[("7", shown)]))
    assert not backend.capabilities.logprobs  # nothing is claimed before it was seen
    found = await backend.choose(question())
    assert (found.method, found.draws) == ("logprobs", None)
    assert found.probability("7") == pytest.approx(0.6 / 0.9)
    assert found.mass == pytest.approx(0.9)
    assert found.usage.requests == 1
    assert backend.capabilities.logprobs


async def test_one_and_ten_are_told_apart_or_counted(make_backend, answer):
    """Where "1" may still become "10", the next position decides; one that was not drawn leaves it to samples."""
    first = {"1": 0.5, "7": 0.5}
    drawn = make_backend(
        lambda *given: answer("10", logprobs=[("1", first), ("0", {"0": 0.75, "</s>": 0.25}), ("</s>", {"</s>": 1.0})])
    )
    found = await drawn.choose(question())
    assert found.method == "logprobs"
    assert found.probability("10") == pytest.approx(0.375)
    assert found.probability("1") == pytest.approx(0.125)
    other = make_backend(lambda *given: answer("7", logprobs=[("7", first), ("</s>", {"</s>": 1.0})]))
    found = await other.choose(question(draws=4))
    assert (found.method, found.draws) == ("sampled", 4)


async def test_a_provider_without_log_probabilities_is_asked_for_them_once(make_backend, answer):
    asked = []

    def reply(messages, tools, choice, config):
        asked.append(config.logprobs)
        return answer("3" if len(asked) % 2 else "4")

    backend = make_backend(reply)
    found = await backend.choose(question(draws=4))
    again = await backend.choose(question(draws=2))
    assert asked == [True, None, None, None, None, None]
    assert (found.method, found.draws, found.usage.requests) == ("sampled", 4, 4)
    assert found.probability("3") == pytest.approx(0.5)
    assert again.draws == 2
    assert backend.notes == [
        "The provider gives no log-probabilities: closed questions are answered by counting samples."
    ]
    assert not backend.capabilities.logprobs
    assert not backend.capabilities.seeds


class RefusedError(Exception):
    def __init__(self, status_code):
        super().__init__("said the provider")
        self.status_code = status_code


async def test_a_provider_that_refuses_to_be_asked_for_them_is_sampled(make_backend, answer):
    def reply(messages, tools, choice, config):
        if config.logprobs:
            raise RefusedError(400)
        return answer("5")

    found = await make_backend(reply).choose(question(draws=3))
    assert (found.method, found.probability("5")) == ("sampled", 1.0)


@pytest.mark.parametrize(
    ("status", "kind"),
    [(401, "auth"), (404, "not_found"), (400, "invalid_request"), (429, "rate_limited"), (503, "server_error")],
)
async def test_failures_are_classified_by_status(make_backend, status, kind):
    def reply(*given):
        raise RefusedError(status)

    with pytest.raises(CallFailedError) as failed:
        await make_backend(reply, max_retries=0).generate(ask())
    assert failed.value.kind == kind
    assert "said the provider" in str(failed.value)


async def test_a_withheld_answer_is_a_refusal_with_what_it_took(make_backend, answer):
    with pytest.raises(CallFailedError) as failed:
        await make_backend(lambda *given: answer("", stop="content_filter")).generate(ask())
    assert failed.value.kind == "refused"
    assert failed.value.usage.prompt_tokens == 23


async def test_a_prompt_is_what_inspects_providers_take(make_backend, answer):
    seen = {}

    def reply(messages, tools, choice, config):
        seen.update(messages=messages, tools=tools, config=config)
        call = InspectToolCall(id="c2", function="book", arguments={"hotel": "Lark"})
        return answer("One moment.", calls=[call], stop="tool_calls")

    call = ToolCall(id="c1", name="book", arguments={"hotel": "Wren"})
    messages = (
        ChatMessage(role="system", content="Be kind."),
        ChatMessage(role="user", content="A room?"),
        ChatMessage(role="assistant", content="", tool_calls=(call,)),
        ChatMessage(role="tool", content="full", tool_call_id="c1"),
    )
    schema = {"type": "object", "properties": {"hotel": {"type": "string"}}, "required": ["hotel"]}
    request = GenerateRequest(
        role="agent",
        messages=messages,
        sampling=Sampling(temperature=0.5, max_tokens=40, stop=("END",)),
        seed=2**40 + 5,
        tools=(ToolSchema(name="book", description="Books.", parameters=schema),),
    )
    said = await make_backend(reply).generate(request)
    kinds = [type(message) for message in seen["messages"]]
    assert kinds == [ChatMessageSystem, ChatMessageUser, ChatMessageAssistant, ChatMessageTool]
    assert seen["messages"][3].function == "book"
    assert seen["messages"][3].tool_call_id == "c1"
    assert seen["tools"][0].parameters.required == ["hotel"]
    config = seen["config"]
    assert (config.temperature, config.max_tokens, config.stop_seqs, config.seed) == (0.5, 40, ["END"], 5)
    assert said.finish_reason == "tool_calls"
    assert said.tool_calls == (ToolCall(id="c2", name="book", arguments={"hotel": "Lark"}),)
    assert (said.usage.prompt_tokens, said.usage.cached_tokens, said.usage.completion_tokens) == (23, 3, 2)
    assert said.usage.latency > 0.0


async def test_an_adapter_is_refused_without_a_request(make_backend, answer):
    with pytest.raises(CallFailedError) as failed:
        await make_backend(lambda *given: pytest.fail("asked")).generate(ask(adapter="weights"))
    assert (failed.value.kind, failed.value.attempts) == ("not_found", 0)


@pytest.mark.parametrize("name", ["nobody/model", "mockllm"])
def test_a_model_that_inspect_has_not_is_the_users_mistake(name):
    with pytest.raises(InfluenceError, match="PROVIDER/MODEL"):
        InspectBackend(name, InspectOptions())
