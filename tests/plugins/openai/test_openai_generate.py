"""Texts from an OpenAI-compatible server, and what its failures become."""

import asyncio
import time
import weakref

import pytest
from tests.waiting import until

from influence_cli.errors import CallFailedError, InfluenceError
from influence_cli.schemas.messages import ChatMessage
from influence_cli.schemas.requests import GenerateRequest, ToolSchema
from influence_openai.backend import OpenAIBackend
from influence_openai.options import OpenAIOptions

KEY = "sk-secret-0123456789abcdef"
TOOL = ToolSchema(name="lookup", description="Looks up.", parameters={"type": "object"})


async def test_answers_with_text_and_what_it_took(make_backend, say):
    answer = await make_backend().generate(say())
    assert answer.text
    assert answer.usage.requests == 1
    assert answer.usage.prompt_tokens > 0
    assert answer.usage.completion_tokens > 0
    assert answer.usage.latency > 0.0


async def test_the_seed_and_the_temperature_are_sent(make_backend, say):
    backend = make_backend()
    texts = {seed: (await backend.generate(say(seed=seed))).text for seed in (1, 2, 3)}
    assert len(set(texts.values())) > 1
    assert (await backend.generate(say(seed=2))).text == texts[2]
    cold = {(await backend.generate(say(seed=seed, temperature=0.0))).text for seed in (1, 2, 3)}
    assert len(cold) == 1


async def test_an_answer_that_was_cut_says_so(make_backend, say):
    answer = await make_backend().generate(say(max_tokens=2, min_tokens=2))
    assert (answer.finish_reason, answer.usage.completion_tokens) == ("length", 2)


async def test_min_tokens_is_sent_only_when_set(make_backend, server, say):
    server.configure(refuses=["min_tokens"])
    backend = make_backend()
    await backend.generate(say())
    assert backend.notes == []
    await backend.generate(say(min_tokens=3))
    assert "min_tokens" in backend.notes[0]


async def test_stop_strings_end_the_reply(make_backend, server, say):
    backend = make_backend()
    text = (await backend.generate(say(max_tokens=200))).text
    word = text.split()[2]
    stopped = (await backend.generate(say(max_tokens=200, stop=(word,)))).text
    assert stopped == text.partition(word)[0]
    server.configure(refuses=["stop"])
    assert (await make_backend().generate(say(max_tokens=200, stop=(word,)))).text == stopped


async def test_tools_and_their_calls_go_both_ways(make_backend, say):
    request = say("Please lookup the weather.").model_copy(update={"tools": (TOOL,)})
    answer = await make_backend().generate(request)
    assert answer.finish_reason == "tool_calls"
    (call,) = answer.tool_calls
    assert (call.id, call.name) == ("call_0", "lookup")
    assert set(call.arguments) == set(TOOL.parameters.get("properties", {}))
    messages = (
        *request.messages,
        ChatMessage(role="assistant", content="", tool_calls=answer.tool_calls),
        ChatMessage(role="tool", content="It rains.", tool_call_id="call_0"),
    )
    told = await make_backend().generate(GenerateRequest(role="agent", messages=messages, tools=(TOOL,)))
    assert told.text
    assert told.finish_reason == "stop"


async def test_extra_body_is_sent(make_backend, server, say):
    server.configure(refuses=["top_k"])
    with pytest.raises(CallFailedError, match="top_k") as caught:
        await make_backend(extra_body={"top_k": 5}).generate(say())
    assert caught.value.kind == "invalid_request"


@pytest.mark.parametrize("fault", ["rate_limit", "server_error", "drop", "malformed", "wrong_shape", "empty"])
async def test_asks_again_after(make_backend, server, say, fault):
    server.configure(script=[fault, fault], retry_after=0.01)
    answer = await make_backend().generate(say())
    assert answer.text
    assert answer.usage.requests == 3


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("rate_limit", "rate_limited"),
        ("server_error", "server_error"),
        ("drop", "connection"),
        ("malformed", "malformed"),
        ("wrong_shape", "malformed"),
        ("empty", "empty"),
    ],
)
async def test_gives_up_when_it_does_not_pass(make_backend, server, say, fault, kind):
    server.configure(faults={fault: 1.0}, retry_after=None)
    with pytest.raises(CallFailedError, match="given up after 3 attempts") as caught:
        await make_backend(max_attempts=3).generate(say())
    assert (caught.value.kind, caught.value.attempts, server.stats()["requests"]) == (kind, 3, 3)


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("auth", "auth"),
        ("not_found", "not_found"),
        ("quota", "quota"),
        ("context_overflow", "context_overflow"),
        ("filtered", "refused"),
        ("long", "too_long"),
    ],
)
async def test_does_not_ask_again_after(make_backend, server, say, fault, kind):
    server.configure(faults={fault: 1.0}, long_bytes=200_000)
    with pytest.raises(CallFailedError) as caught:
        await make_backend(max_response_bytes=100_000).generate(say())
    assert (caught.value.kind, caught.value.attempts, server.stats()["requests"]) == (kind, 1, 1)


async def test_a_slow_answer_is_a_timeout(make_backend, server, say):
    server.configure(faults={"slow": 1.0}, slow_seconds=3.0)
    with pytest.raises(CallFailedError, match=r"within 0\.1 s") as caught:
        await make_backend(timeout=0.1, max_attempts=1).generate(say())
    assert caught.value.kind == "timeout"


async def test_a_server_that_is_not_there_is_a_connection_failure(say):
    options = OpenAIOptions(base_url="http://127.0.0.1:9/v1", max_attempts=2, retry_delay=0.0)
    backend = OpenAIBackend("m", options)
    with pytest.raises(CallFailedError) as caught:
        await backend.generate(say())
    assert (caught.value.kind, caught.value.attempts) == ("connection", 2)
    await backend.aclose()


async def test_a_real_context_overflow_is_told(make_backend, server, say):
    server.configure(context_length=5)
    with pytest.raises(CallFailedError, match="longer than the model's context") as caught:
        await make_backend().generate(say("one two three four five six seven"))
    assert caught.value.kind == "context_overflow"


async def test_an_unknown_model_is_not_found(make_backend, say):
    with pytest.raises(CallFailedError, match="nobody") as caught:
        await make_backend("nobody").generate(say())
    assert caught.value.kind == "not_found"


async def test_a_prompt_of_megabytes_is_sent(make_backend, say):
    assert (await make_backend().generate(say("word " * 300_000))).text


async def test_an_adapter_is_asked_for_by_its_name(make_backend, server, say):
    server.configure(models=["test-model", "tuned"])
    request = say(seed=1).model_copy(update={"adapter": "tuned"})
    backend = make_backend(adapters=True)
    assert (await backend.generate(request)).text != (await backend.generate(say(seed=1))).text
    with pytest.raises(InfluenceError, match="adapters=true"):
        await make_backend().generate(request)


async def test_retry_after_pauses_all_calls(make_backend, server, say):
    server.configure(script=["rate_limit"], retry_after=0.4)
    backend = make_backend()
    started = time.perf_counter()
    await asyncio.gather(backend.generate(say(seed=1)), asyncio.sleep(0.1))
    assert time.perf_counter() - started >= 0.4
    assert backend.limiter.state.falls == 1


async def test_a_server_that_wants_an_hour_is_not_waited_for(make_backend, server, say):
    server.configure(faults={"rate_limit": 1.0}, retry_after=3600)
    with pytest.raises(CallFailedError, match="wait of 3600 s") as caught:
        await make_backend().generate(say())
    assert (caught.value.kind, server.stats()["requests"]) == ("rate_limited", 1)


async def test_never_more_in_flight_than_allowed(make_backend, server, say):
    server.configure(latency=0.01)
    abandoned = server.stats()["in_flight"]  # by tests before, and not finished yet
    backend = make_backend(max_concurrency=5)
    await asyncio.gather(*(backend.generate(say(seed=seed)) for seed in range(40)))
    assert server.stats()["peak_in_flight"] - abandoned <= 5


async def test_every_call_is_answered_through_a_storm(make_backend, server, say):
    server.configure(faults={"rate_limit": 0.1, "server_error": 0.1, "drop": 0.1, "malformed": 0.05}, retry_after=0.01)
    backend = make_backend(max_attempts=12)
    answers = await asyncio.gather(*(backend.generate(say(seed=seed)) for seed in range(150)))
    calm = make_backend()
    server.configure(faults={})
    again = await asyncio.gather(*(calm.generate(say(seed=seed)) for seed in range(150)))
    same = sum(one.text == other.text for one, other in zip(answers, again, strict=True))
    assert same >= 135  # the others were asked again with another seed, after a malformed answer


async def test_an_outage_is_not_multiplied(make_backend, server, say):
    server.configure(faults={"server_error": 1.0})
    backend = make_backend(max_concurrency=1, max_attempts=50)
    calls = [backend.generate(say(seed=seed)) for seed in range(100)]
    failed = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(error, CallFailedError) for error in failed)
    assert server.stats()["requests"] <= 100 + 0.5 * 100 + 101
    assert any("retries are suspended" in str(error) for error in failed)


async def test_cancelled_calls_give_their_place_back(make_backend, server, say):
    server.configure(latency=0.2)
    backend = make_backend(max_concurrency=2)
    tasks = [asyncio.ensure_future(backend.generate(say(seed=seed))) for seed in range(6)]
    await asyncio.sleep(0.05)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert (backend.limiter.state.in_flight, backend.limiter.state.waiting) == (0, 0)
    assert (await backend.generate(say())).text


@pytest.mark.parametrize("fault", ["cancelled", "drop", "malformed", "server_error"])
async def test_a_call_that_comes_to_nothing_leaves_nothing_to_the_collector(
    make_backend, server, say, uncollected, fault
):
    server.configure(latency=30.0 if fault == "cancelled" else 0.0, faults={} if fault == "cancelled" else {fault: 1.0})
    request = say()
    asked = weakref.ref(request)
    task = asyncio.ensure_future(make_backend(max_attempts=2).generate(request))
    if fault == "cancelled":
        await until(lambda: server.stats()["in_flight"])
        task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    del request, task
    await until(lambda: asked() is None, 10)


async def test_after_closing_calls_fail_without_retries(make_backend, server, say):
    backend = make_backend()
    await backend.aclose()
    with pytest.raises(CallFailedError, match="closed") as caught:
        await backend.generate(say())
    assert server.stats()["requests"] == 0
    assert caught.value.kind == "internal"


def test_one_backend_serves_one_event_loop_after_another(server, say):
    backend = OpenAIBackend("test-model", OpenAIOptions(base_url=server.base_url))

    async def once() -> str:
        answer = (await backend.generate(say())).text
        await backend._client._session.close()
        return answer

    assert asyncio.run(once()) == asyncio.run(once())


async def test_the_key_is_sent_and_shown_nowhere(make_backend, server, say, monkeypatch):
    monkeypatch.setenv("MY_KEY", KEY)
    server.configure(api_key=KEY)
    backend = make_backend(api_key_env="MY_KEY")
    assert (await backend.generate(say())).text
    shown = [repr(backend), repr(backend.options), repr(backend._client), backend.options.model_dump_json()]
    server.configure(faults={"auth": 1.0})
    with pytest.raises(CallFailedError, match="refused the key in MY_KEY") as caught:
        await backend.generate(say())
    assert all(KEY not in text and KEY[:8] not in text for text in [*shown, str(caught.value)])


async def test_a_wrong_key_is_an_auth_failure(make_backend, server, say):
    server.configure(api_key=KEY)
    with pytest.raises(CallFailedError, match="OPENAI_API_KEY") as caught:
        await make_backend().generate(say())
    assert caught.value.kind == "auth"


async def test_capabilities_say_what_is_known(make_backend):
    found = make_backend(seeds=True, context_length=4096, max_concurrency=9).capabilities
    assert (found.logprobs, found.seeds, found.context_length, found.max_concurrency) == (True, True, 4096, 9)


async def test_without_token_counts_they_are_estimated_and_that_is_told(make_backend, server, say):
    counted = (await make_backend().generate(say("word " * 200))).usage
    server.configure(reports_usage=False)
    backend = make_backend()
    usage = (await backend.generate(say("word " * 200))).usage
    assert counted.prompt_tokens / 2 < usage.prompt_tokens < counted.prompt_tokens * 2
    assert counted.completion_tokens / 2 < usage.completion_tokens < counted.completion_tokens * 3
    assert backend.notes == [
        "The server reports no token counts: they are estimated from the lengths of prompts and replies."
    ]


async def test_what_a_failed_call_took_is_known(make_backend, server, say):
    server.configure(faults={"empty": 1.0})
    with pytest.raises(CallFailedError) as caught:
        await make_backend(max_attempts=3).generate(say())
    usage, stats = caught.value.usage, server.stats()
    assert (usage.requests, usage.prompt_tokens) == (3, stats["prompt_tokens"])
    assert usage.completion_tokens == stats["completion_tokens"] > 0
