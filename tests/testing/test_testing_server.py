"""The test server: content that repeats, faults on demand, counters."""

import math
import urllib.error
import urllib.request
from collections.abc import Iterator

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from influence_cli.testing.answers import answer_choice, asked_choices, choice_probabilities
from influence_cli.testing.server import ServerConfig, TestServer, serve

RATE = "Answer only with a whole number from 1 to 10."


@pytest.fixture(scope="module")
def running() -> Iterator[TestServer]:
    with serve(seed=5) as server:
        yield server


@pytest.fixture
def server(running: TestServer) -> TestServer:
    running.configure(**ServerConfig(seed=5).model_dump(mode="json"))
    running.reset()
    return running


def post(server: TestServer, content: str = "Hello.", headers: dict[str, str] | None = None, **fields: object):
    body = {"model": "test-model", "messages": [{"role": "user", "content": content}], "max_tokens": 20} | fields
    request = urllib.request.Request(
        f"{server.base_url}/chat/completions",
        orjson.dumps(body),
        {"Content-Type": "application/json"} | (headers or {}),
    )
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=20) as response:
            return response.status, orjson.loads(response.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, orjson.loads(error.read())


def text(answer) -> str:
    return answer[1]["choices"][0]["message"]["content"]


def test_content_depends_on_messages_model_and_seed_only(server):
    first = text(post(server, seed=1))
    post(server, "Something else.")
    assert text(post(server, seed=1)) == first
    assert text(post(server, seed=2)) != first
    assert text(post(server, "Other.", seed=1)) != first
    assert text(post(server, seed=1, temperature=0)) == text(post(server, seed=2, temperature=0))
    server.configure(seed=6)
    assert text(post(server, seed=1)) != first


@pytest.mark.parametrize(
    ("line", "choices"),
    [
        ("Is it so? Answer only with yes or no.", ("yes", "no")),
        ("Answer only with 0 or 1.", ("0", "1")),
        (RATE, tuple(str(n) for n in range(1, 11))),
        ("Answer only with a whole number from 1 to 5.", tuple("12345")),
        ("Answer only with one of: go on, stop.", ("go on", "stop")),
        ("Answer only with left or right.", ("left", "right")),
        ("How are you?", None),
    ],
)
def test_the_last_line_says_what_is_asked(line, choices):
    assert asked_choices(line) == choices


def test_a_closed_question_is_answered_with_a_choice_and_its_probabilities(server):
    _, answer = post(server, f"A transcript.\n{RATE}", max_tokens=1, logprobs=True, top_logprobs=20)
    (place,) = answer["choices"][0]["logprobs"]["content"]
    assert len(place["top_logprobs"]) == 20
    assert place["token"].strip() in {entry["token"].strip() for entry in place["top_logprobs"]}
    assert sum(math.exp(entry["logprob"]) for entry in place["top_logprobs"]) <= 1.0 + 1e-9


def test_10_can_be_two_tokens(server):
    server.configure(split_numbers=True)
    tokens = set()
    for number in range(20):
        _, answer = post(server, f"{number}. {RATE}", max_tokens=4, logprobs=True, top_logprobs=20)
        tokens |= {e["token"] for place in answer["choices"][0]["logprobs"]["content"] for e in place["top_logprobs"]}
    assert "10" not in tokens
    assert "0" in tokens


def test_it_can_give_no_logprobs(server):
    server.configure(logprobs=False)
    assert post(server, RATE, max_tokens=1, logprobs=True, top_logprobs=20)[1]["choices"][0]["logprobs"] is None


@pytest.mark.parametrize(
    ("fault", "status"),
    [("rate_limit", 429), ("server_error", 500), ("context_overflow", 400), ("auth", 401), ("not_found", 404)],
)
def test_faults_come_by_script(server, fault, status):
    server.configure(script=["ok", fault])
    assert [post(server)[0] for _ in range(3)] == [200, status, 200]
    assert server.stats()["injected"] == {fault: 1}


def test_faults_come_by_share(server):
    server.configure(faults={"server_error": 0.3})
    statuses = [post(server)[0] for _ in range(60)]
    assert 6 <= statuses.count(500) <= 32


def test_paid_answers_are_counted_by_their_body_whatever_the_order_of_its_keys(server):
    server.configure(script=["rate_limit"])
    post(server)
    assert server.bodies() == {}
    post(server, seed=1, n=1)
    post(server, n=1, seed=1)
    post(server, "Other.")
    assert sorted(server.bodies().values()) == [1, 2]
    assert server.stats()["repeated"] == 1
    server.reset()
    assert server.stats()["requests"] == 0


def test_a_key_can_be_required(server):
    server.configure(api_key="right")
    assert post(server)[0] == 401
    assert post(server, headers={"Authorization": "Bearer right"})[0] == 200


def test_requests_that_are_none_are_refused(server):
    assert post(server, model="nobody")[0] == 404
    assert post(server, messages="x")[0] == 400
    assert post(server, messages=[3])[0] == 400


def test_slots_are_shared(server):
    server.configure(slots=1, latency=0.01)
    assert post(server)[0] == 200


def test_a_wrong_configuration_is_refused_and_changes_nothing(server):
    with pytest.raises(urllib.error.HTTPError) as caught:
        server.configure(latency=-1)
    caught.value.close()
    assert post(server)[0] == 200


def test_a_server_that_cannot_start_says_so():
    with pytest.raises(ValueError, match="latency"), serve(latency=-1):
        pass


def test_it_ends_with_its_block():
    with serve() as server:
        process = server.process
    assert process.returncode == 0


@given(st.integers(0, 2**63 - 1), st.integers(2, 12))
def test_choice_probabilities_sum_to_one(key, count):
    found = choice_probabilities(key, tuple(str(n) for n in range(count)))
    assert math.isclose(math.fsum(found.values()), 1.0)
    assert min(found.values()) >= 0.0


@given(st.integers(0, 2**63 - 1), st.integers(0, 100), st.booleans(), st.booleans())
def test_a_spoken_choice_is_one_that_was_asked_for_or_known_noise(key, seed, split, shows_end):
    choices = tuple(str(n) for n in range(1, 11))
    speech = answer_choice(
        key, choices, prefix="", most=8, seed=seed, temperature=1.0, split_numbers=split, shows_end=shows_end
    )
    assert speech.ended
    assert speech.text.strip() in {*choices, "The", "I", "Rating", "**"}
    assert len(speech.places) == len(speech.tokens) + shows_end
