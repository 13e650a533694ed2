"""Distributions from an OpenAI-compatible server."""

import asyncio

import pytest

from influence_cli.errors import CallFailedError
from influence_cli.seeding import derive_seed
from influence_cli.testing.answers import choice_probabilities


@pytest.fixture
def truth():
    """What the server's model gives the choices of a one-message prompt."""
    import orjson

    def probabilities(request):
        messages = [{"role": m.role, "content": m.content} for m in request.messages]
        prompt = orjson.dumps(messages, option=orjson.OPT_SORT_KEYS).decode()
        return choice_probabilities(derive_seed(0, "test-model", prompt), request.choices)

    return probabilities


def differs(distribution, truth) -> float:
    return max(abs(distribution.probability(choice) - p) for choice, p in truth.items())


async def test_ratings_are_those_of_the_model(make_backend, ask, truth):
    for number in range(20):
        request = ask(f"Case {number}. Answer only with a whole number from 1 to 10.")
        found = await make_backend().choose(request)
        assert differs(found, truth(request)) < 0.01
        assert found.method == "logprobs"
        assert 0.9 < found.mass < 1.0


async def test_one_request_is_enough_once_10_was_seen_as_one_token(make_backend, ask):
    backend = make_backend()
    requests = [ask(f"Case {number}. Answer only with a whole number from 1 to 10.") for number in range(60)]
    found = [await backend.choose(request) for request in requests]
    assert all(f.usage.requests == 1 for f in found[20:])
    assert all(f.usage.completion_tokens <= 4 for f in found[20:])


@pytest.mark.parametrize(
    ("question", "choices"),
    [("Answer only with yes or no.", ("yes", "no")), ("Answer only with 0 or 1.", ("0", "1"))],
)
async def test_two_choices_take_one_token(make_backend, ask, truth, question, choices):
    request = ask(question, choices)
    found = await make_backend().choose(request)
    assert differs(found, truth(request)) < 1e-6
    assert found.usage.completion_tokens == 1
    assert found.mass == pytest.approx(0.98)


@pytest.mark.parametrize("shows_end", [True, False])
@pytest.mark.parametrize("honours_n", [True, False])
async def test_a_split_10_is_told_from_1_by_a_second_look(make_backend, server, ask, truth, shows_end, honours_n):
    server.configure(split_numbers=True, shows_end=shows_end, honours_n=honours_n)
    backend = make_backend()
    looks = 0
    for number in range(20):
        request = ask(f"Case {number}. Answer only with a whole number from 1 to 10.", seed=number)
        found = await backend.choose(request)
        assert differs(found, truth(request)) < 0.01
        assert found.method == "logprobs"
        looks += found.usage.requests
    assert 20 < looks <= (40 if shows_end else 60 if honours_n else 240)
    assert all("fewer samples" in note for note in backend.notes)


async def test_the_same_answer_is_looked_at_first(make_backend, server, ask, truth):
    server.configure(split_numbers=True, continues=False)
    requests = [ask(f"Case {n}. Answer only with a whole number from 1 to 10.", seed=n, draws=5) for n in range(60)]
    found = [await make_backend(assistant_prefix="never").choose(request) for request in requests]
    single = [(f, r) for f, r in zip(found, requests, strict=True) if f.usage.requests == 1 and f.method == "logprobs"]
    assert any(f.probability("10") > 0.01 for f, _ in single)
    assert all(differs(f, truth(r)) < 0.02 for f, r in single)


async def test_labels_of_several_words_are_told_apart(make_backend, ask, truth):
    choices = ("very likely", "very unlikely", "unclear")
    request = ask(f"How likely? Answer only with one of: {', '.join(choices)}.", choices)
    found = await make_backend().choose(request)
    assert differs(found, truth(request)) < 0.02
    assert found.method == "logprobs"


async def test_a_server_that_ignores_the_begun_answer_is_found_out(make_backend, server, ask, truth):
    server.configure(split_numbers=True, continues=False)
    backend = make_backend()
    requests = [ask(f"Case {n}. Answer only with a whole number from 1 to 10.", seed=n, draws=400) for n in range(40)]
    found = [await backend.choose(request) for request in requests]
    assert {f.method for f in found} == {"logprobs", "sampled"}
    assert "begins a new message" in backend.notes[0]
    assert all(differs(f, truth(r)) < 0.12 for f, r in zip(found, requests, strict=True))


async def test_without_token_counts_the_continuation_is_not_trusted(make_backend, server, ask, truth):
    server.configure(split_numbers=True, reports_usage=False)
    backend = make_backend()
    for number in range(30):
        await backend.choose(ask(f"Case {number}. Answer only with a whole number from 1 to 10.", seed=number))
    assert "The server reports no token counts" in backend.notes[0]
    assert "reports no prompt tokens" in backend.notes[1]


async def test_a_server_that_refuses_the_continuation_is_sampled(make_backend, server, ask, truth):
    server.configure(split_numbers=True, refuses=["continue_final_message"])
    backend = make_backend()
    found = [
        await backend.choose(ask(f"Case {n}. Answer only with a whole number from 1 to 10.", seed=n)) for n in range(30)
    ]
    assert "sampled" in {f.method for f in found}
    assert any("continue_final_message" in note for note in backend.notes)


async def test_without_logprobs_samples_are_drawn_many_at_a_time(make_backend, server, ask, truth):
    server.configure(logprobs=False)
    backend = make_backend()
    request = ask(draws=400)
    found = await backend.choose(request)
    assert (found.method, found.draws) == ("sampled", 400)
    assert found.usage.requests == 5  # one look, then 128 samples at a time
    assert differs(found, truth(request)) < 0.1
    assert not backend.capabilities.logprobs
    assert "no log-probabilities" in backend.notes[0]


async def test_a_server_without_n_is_asked_in_parallel(make_backend, server, ask):
    server.configure(logprobs=False, honours_n=False, latency=0.05)
    backend = make_backend()
    found = await backend.choose(ask(draws=12))
    assert (found.draws, found.usage.requests) == (12, 13)
    assert server.stats()["peak_in_flight"] >= 8
    assert any("fewer samples" in note for note in backend.notes)


async def test_samples_repeat_with_the_seed(make_backend, server, ask):
    backend = make_backend(logprobs=False)
    one, again, other = [await backend.choose(ask(seed=seed)) for seed in (1, 1, 2)]
    assert one.probabilities == again.probabilities != other.probabilities


async def test_the_options_say_how_many_samples(make_backend, ask):
    assert (await make_backend(logprobs=False, draws=7).choose(ask())).draws == 7


async def test_a_single_sample_needs_no_n(make_backend, server, ask):
    server.configure(refuses=["n"])
    backend = make_backend(logprobs=False)
    assert (await backend.choose(ask(draws=1))).draws == 1
    assert backend.notes == []


async def test_a_failed_sample_fails_the_call_with_all_requests_counted(make_backend, server, ask):
    server.configure(honours_n=False, script=["ok", "ok", "auth"])
    with pytest.raises(CallFailedError) as caught:
        await make_backend(logprobs=False, max_concurrency=1).choose(ask(draws=10))
    assert (caught.value.kind, caught.value.attempts) == ("auth", server.stats()["requests"])


async def test_the_most_tokens_that_the_server_shows_are_asked_for(make_backend, server, ask):
    server.configure(max_top_logprobs=5)
    backend = make_backend()
    found = await asyncio.gather(*(backend.choose(ask(seed=seed)) for seed in range(10)))
    assert {f.method for f in found} == {"logprobs"}
    assert backend.notes == ["The server shows only the 5 likeliest tokens: choices beyond them count as 0."]


async def test_an_answer_without_any_choice_is_unusable(make_backend, ask):
    with pytest.raises(CallFailedError) as caught:
        await make_backend().choose(ask("Answer only with yes or no.", ("left", "right")))
    assert (caught.value.kind, caught.value.attempts) == ("unusable", 1)


@pytest.mark.parametrize(("fault", "kind"), [("filtered", "refused"), ("empty", "empty")])
async def test_answers_with_nothing_in_them_fail(make_backend, server, ask, fault, kind):
    server.configure(faults={fault: 1.0})
    with pytest.raises(CallFailedError) as caught:
        await make_backend(max_attempts=2).choose(ask())
    assert caught.value.kind == kind


@pytest.mark.parametrize("name", ["temperature", "seed", "max_tokens", "logprobs", "top_logprobs"])
async def test_what_a_server_refuses_is_adapted_once_and_noted(make_backend, server, ask, name):
    server.configure(refuses=[name])
    backend = make_backend()
    veto = ask("Was it harmful? Answer only with yes or no.", ("yes", "no"))
    await asyncio.gather(*(backend.choose(veto) for _ in range(5)))
    before = server.stats()["requests"]
    await backend.choose(veto)
    assert server.stats()["requests"] == before + 1
    assert len(backend.notes) == 1
    assert name in backend.notes[0] or "logprobs" in backend.notes[0]


async def test_a_server_that_shows_fewer_tokens_than_asked_for_is_told_of(make_backend, server, ask):
    server.configure(shows_top=3)
    backend = make_backend()
    found = [await backend.choose(ask(seed=seed)) for seed in range(3)]
    assert all(f.mass < 0.99 for f in found)
    assert backend.notes == [
        "The server shows fewer of the likeliest tokens than asked for: choices beyond them count as 0."
    ]


async def test_what_a_call_of_no_use_took_is_known(make_backend, server, ask):
    server.configure(faults={"empty": 1.0})
    with pytest.raises(CallFailedError) as caught:
        await make_backend(max_attempts=2).choose(ask())
    assert caught.value.usage.requests == 2
    assert caught.value.usage.prompt_tokens == server.stats()["prompt_tokens"]
