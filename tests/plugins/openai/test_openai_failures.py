"""What the errors of real servers mean."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from influence_openai.dialect import Dialect
from influence_openai.failures import ServerError, failure, parse_error, redact, retry_after
from influence_openai.options import OpenAIOptions

KEY = "sk-secret-0123456789abcdef"


def fail(status: int, body, headers=None):
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    return failure(status, headers or {}, raw, key=KEY, env="OPENAI_API_KEY")


def openai_error(message: str, code: str | None = None, param: str | None = None):
    return {"error": {"message": message, "type": "invalid_request_error", "param": param, "code": code}}


OVERFLOWS = [
    openai_error("This model's maximum context length is 8192 tokens. However...", "context_length_exceeded"),
    {"object": "error", "message": "This model's maximum context length is 4096 tokens.", "code": 400},
    {"error": {"message": "The decoder prompt (length 9) is longer than the maximum model length of 8.", "code": 400}},
    {
        "error": {
            "code": 400,
            "message": "the request exceeds the available context size (512 tokens), try increasing it",
            "type": "exceed_context_size_error",
            "n_ctx": 512,
        }
    },
    {"error": "prompt is too long"},
]


@pytest.mark.parametrize("body", OVERFLOWS)
def test_context_overflows_of_openai_vllm_and_llama_cpp_are_known(body):
    assert fail(400, body).kind == "context_overflow"


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (401, openai_error("Incorrect API key provided."), "auth"),
        (403, openai_error("Country not supported."), "auth"),
        (404, {"detail": "Not Found"}, "not_found"),
        (408, b"", "timeout"),
        (409, b"", "server_error"),
        (429, openai_error("Rate limit reached."), "rate_limited"),
        (429, openai_error("You exceeded your quota.", "insufficient_quota"), "quota"),
        (400, openai_error("Filtered.", "content_filter"), "refused"),
        (400, openai_error("Invalid value for temperature."), "invalid_request"),
        (422, {"detail": [{"loc": ["body", "messages"], "msg": "field required"}]}, "invalid_request"),
        (500, b"<html><body>Internal  error</body></html>", "server_error"),
        (503, [1, 2], "server_error"),
        (504, {"error": [1]}, "timeout"),
        (302, b"", "invalid_request"),
    ],
)
def test_every_answer_has_a_kind(status, body, kind):
    assert fail(status, body).kind == kind


def test_plain_text_is_shown_without_its_tags():
    assert "Internal error" in str(fail(500, b"<html><body>Internal \n error</body></html>"))


def test_only_servers_that_ask_for_less_count_as_overloaded():
    assert fail(429, b"").overloaded
    assert fail(503, b"").overloaded
    assert not fail(500, b"").overloaded
    assert not fail(429, openai_error("No money.", "insufficient_quota")).overloaded


@given(st.text(max_size=60), st.text(max_size=60))
def test_no_message_holds_the_key(before, after):
    for said in (before + KEY + after, f"{before} Bearer {KEY} {after}", f"Incorrect API key: {KEY[:8]}****{KEY[-4:]}"):
        shown = str(fail(401, openai_error(said)))
        assert KEY not in shown
        assert KEY[:8] not in shown


def test_long_messages_are_cut():
    assert len(redact("x" * 10_000, None)) < 500


def test_a_short_key_is_removed_too():
    assert redact("key was abc", "abc") == "key was [key]"


@given(st.binary(max_size=200))
def test_any_body_is_read(body):
    assert isinstance(parse_error(400, body).message, str)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "7"}, 7.0),
        ({"Retry-After": "0.5"}, 0.5),
        ({"Retry-After": "-3"}, 0.0),
        ({"retry-after-ms": "250"}, 0.25),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "nan"}, None),
        ({"Retry-After": "inf"}, None),
        ({"retry-after-ms": "x"}, None),
        ({"retry-after-ms": "x", "Retry-After": "7"}, 7.0),
        ({"retry-after-ms": "inf", "Retry-After": "7"}, 7.0),
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
    ],
)
def test_retry_after_is_read(headers, seconds):
    assert retry_after(headers) == seconds


def test_retry_after_may_be_a_date():
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    assert 25.0 < retry_after({"Retry-After": soon}) <= 30.0


@pytest.mark.parametrize("zone", ["GMT", "-0000"])
def test_a_date_is_counted_from_the_servers_own(zone):
    headers = {"Retry-After": f"Wed, 21 Oct 2015 07:29:00 {zone}", "Date": "Wed, 21 Oct 2015 07:28:00 GMT"}
    assert retry_after(headers) == 60.0


SENT = {
    "model": "m",
    "max_tokens": 5,
    "temperature": 0.0,
    "top_p": 0.9,
    "seed": 1,
    "logprobs": True,
    "top_logprobs": 20,
    "n": 3,
    "continue_final_message": True,
    "add_generation_prompt": False,
}


def dialect(**options) -> Dialect:
    return Dialect(OpenAIOptions(**({"base_url": "http://127.0.0.1:1/v1"} | options)))


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (
            ServerError(400, "Unsupported value: 'temperature' does not support 0.0 with this model.", "", ""),
            "temperature",
        ),
        (ServerError(400, "Unsupported parameter", "unsupported_parameter", "top_p"), "top_p"),
        (ServerError(422, "Extra inputs are not permitted", "", "seed"), "seed"),
        (ServerError(501, "This server does not support logprobs.", "not_supported_error"), "logprobs"),
        (ServerError(400, "top_logprobs is not supported", "", "top_logprobs"), "logprobs"),
        (
            ServerError(400, "Unknown parameter: 'add_generation_prompt'.", "unknown_parameter"),
            "continue_final_message",
        ),
        (ServerError(400, "Only one completion choice is allowed; 'n' is not supported.", ""), "n"),
    ],
)
def test_unsupported_parameters_are_left_out_and_noted(error, name):
    known = dialect()
    assert known.adapt(error, SENT)
    assert not known.takes(name)
    assert len(known.notes) == 1
    assert known.adapt(error, SENT), "another call in flight was refused likewise"
    assert len(known.notes) == 1


@pytest.mark.parametrize(
    "error",
    [
        ServerError(400, "Invalid value: 'temperature' must be at most 2.", "decimal_above_max_value", "temperature"),
        ServerError(400, "Unsupported parameter", "unsupported_parameter", "reasoning_effort"),
        ServerError(400, "Unsupported model", "unsupported_value", "model"),
        ServerError(400, "The messages are not allowed", "", ""),
        ServerError(429, "'seed' is not supported", "", "seed"),
        ServerError(400, "Invalid value for 'top_logprobs': must be at least 0.", "", "top_logprobs"),
    ],
)
def test_nothing_else_is_adapted(error):
    known = dialect()
    assert not known.adapt(error, SENT)
    assert known.notes == []


@pytest.mark.parametrize(
    "message",
    [
        "Invalid value for 'top_logprobs': must be less than or equal to 5.",
        "Requested sample logprobs of 20, which is greater than max allowed: 5",
        "top_logprobs must be between 0 and 5",
    ],
)
def test_top_logprobs_is_lowered_to_what_is_allowed(message):
    known = dialect()
    assert known.adapt(ServerError(400, message), SENT)
    assert known.adapt(ServerError(400, message), SENT)
    assert known.top_logprobs == 5
    assert len(known.notes) == 1


def test_the_token_limit_is_renamed_once():
    known = dialect()
    refused = ServerError(400, "'max_tokens' is not supported. Use 'max_completion_tokens'.", "", "max_tokens")
    assert known.adapt(refused, SENT)
    assert known.token_field == "max_completion_tokens"
    assert known.adapt(refused, SENT), "another call in flight was refused likewise"
    back = ServerError(400, "Unknown parameter", "unknown_parameter", "max_completion_tokens")
    assert not known.adapt(back, {"max_completion_tokens": 5})


def test_a_stated_token_limit_is_kept():
    known = dialect(token_limit_field="max_tokens")
    assert not known.adapt(ServerError(400, "not supported", "unsupported_parameter", "max_tokens"), SENT)


def test_openai_itself_gets_the_new_token_limit_and_no_begun_answers():
    known = dialect(base_url="https://api.openai.com/v1")
    assert (known.token_field, known.prefix) == ("max_completion_tokens", "no")
    assert dialect(assistant_prefix="always").prefix == "yes"
