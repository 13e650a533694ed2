"""Scoring many conversations: what is missing is asked, in an order that shares most, within budgets."""

import asyncio

import pytest
from tests.waiting import until

from influence_cli.backends.names import parse_model_name
from influence_cli.backends.scripted import ScriptedBackend, ScriptedOptions
from influence_cli.errors import InfluenceError
from influence_cli.schemas.configs import Budget, Price
from influence_cli.schemas.records import CallRecord
from influence_cli.schemas.rubrics import Rubric
from influence_cli.scoring.estimating import estimate_scores
from influence_cli.scoring.judging import Asking
from influence_cli.scoring.plan import Plan
from influence_cli.scoring.rubric_files import pick_rubrics
from influence_cli.scoring.running import ScoreTally, ask_all, ended
from influence_cli.simulation.gate import Gate
from influence_cli.simulation.models import RoleModel
from influence_openai.backend import OpenAIBackend
from influence_openai.options import OpenAIOptions

PLAIN = Asking()
HARM = Rubric(id="harm", question="How harmful?")


def conversations(conversation, count):
    for number in range(1, count + 1):
        yield number, {**conversation, "sample": number, "profile": {"name": f"Ada{number}"}}


async def ask(found, plan, book, asking=PLAIN, **more):
    tally = ScoreTally(budget=more.pop("budget", Budget()))
    await ask_all(found, plan.items, asking, book, tally, concurrency=more.pop("concurrency", 4), **more)
    return tally


async def test_what_is_scored_is_not_asked_again_and_what_is_new_is(conversation, model, book):
    plan = Plan(rubrics=[HARM], judges=[model()])
    first = await ask(conversations(conversation, 5), plan, book)
    second = await ask(conversations(conversation, 7), plan, book)
    assert (first.done, first.skipped) == (5, 0)
    assert (second.done, second.skipped) == (2, 5)
    assert len(book.scores) == len(book.calls) == 7


async def test_failed_scores_are_asked_again_and_never_defaulted(conversation, model, book):
    failing = model(script="failures: [{kind: server_error, share: 0.5}]")
    tally = await ask(conversations(conversation, 40), Plan(rubrics=[HARM], judges=[failing]), book)
    failed = tally.failed["server_error"]
    assert 0 < failed < 40
    assert sum(score.value is None and not score.usable for score in book.scores.values()) == failed
    assert (await ask(conversations(conversation, 40), Plan(rubrics=[HARM], judges=[model()]), book)).done == failed
    assert all(score.failure is None for score in book.scores.values())


async def test_another_method_judge_or_question_is_another_score(conversation, model, book):
    other = model(name="scripted:other")
    await ask(conversations(conversation, 1), Plan(rubrics=[HARM], judges=[model(), other]), book)
    await ask(conversations(conversation, 1), Plan(rubrics=[HARM], judges=[model()]), book, Asking(orders=True))
    changed = HARM.model_copy(update={"question": "How very harmful?"})
    await ask(conversations(conversation, 1), Plan(rubrics=[changed], judges=[model()]), book)
    assert len(book.scores) == 4


@pytest.mark.parametrize("budget", [Budget(tokens=500), Budget(cost=500.0)])
async def test_a_budget_stops_and_the_next_sitting_goes_on(conversation, model, book, budget):
    judge = model(price=Price(prompt=1e6, completion=1e6))
    plan = Plan(rubrics=[HARM], judges=[judge])
    stopped = await ask(conversations(conversation, 50), plan, book, budget=budget, concurrency=2)
    assert stopped.stop in ("tokens", "cost")
    assert 0 < stopped.done < 50
    assert stopped.cost == stopped.tokens
    rest = await ask(conversations(conversation, 50), plan, book)
    assert (rest.skipped, rest.done) == (stopped.done, 50 - stopped.done)


async def test_what_was_used_before_counts_against_the_budget(conversation, model, book):
    plan = Plan(rubrics=[HARM], judges=[model()])
    used = ScoreTally(Budget(tokens=500), earlier_tokens=500)
    used.check_budget()
    await ask_all(conversations(conversation, 50), plan.items, PLAIN, book, used, concurrency=2)
    assert (used.stop, used.done) == ("tokens", 0)
    nearly = ScoreTally(Budget(cost=5.0), earlier_cost=4.999)
    dear = Plan(rubrics=[HARM], judges=[model(price=Price(prompt=1e6, completion=1e6))])
    await ask_all(conversations(conversation, 50), dear.items, PLAIN, book, nearly, concurrency=1)
    assert (nearly.stop, nearly.done) == ("cost", 1)


def test_an_answer_from_the_cache_uses_up_no_budget():
    tally = ScoreTally(Budget(tokens=100))
    tally.add_call(CallRecord(turn=0, role="judge", model="a", prompt_tokens=90, completion_tokens=9, cached=True))
    assert (tally.tokens, tally.stop) == (0, None)
    tally.add_call(CallRecord(turn=0, role="judge", model="a", prompt_tokens=99, completion_tokens=1))
    assert (tally.tokens, tally.stop) == (100, "tokens")


async def test_nothing_is_asked_while_the_gate_is_shut_nor_after_a_stop_that_opens_it(conversation, model, book):
    gate, plan = Gate(), Plan(rubrics=[HARM], judges=[model()])
    for stop in ("signal", None):
        gate.close()
        tally = ScoreTally()
        found = conversations(conversation, 5)
        asking = asyncio.ensure_future(ask_all(found, plan.items, PLAIN, book, tally, concurrency=2, gate=gate))
        for _ in range(20):
            await asyncio.sleep(0)
        assert (tally.done, asking.done()) == (0, False)
        tally.stop = stop
        gate.open()
        await ended(asking, tally)
    assert tally.done == len(book.calls) == 5


async def test_what_is_in_flight_has_some_seconds_after_a_stop(conversation, model, book, monkeypatch):
    monkeypatch.setattr("influence_cli.scoring.running.GRACE", 0.2)
    slow = model(ScriptedBackend("demo", ScriptedOptions(latency=60)))
    tally = ScoreTally()
    plan = Plan(rubrics=[HARM], judges=[slow])
    asking = asyncio.ensure_future(
        ask_all(conversations(conversation, 5), plan.items, PLAIN, book, tally, concurrency=2)
    )
    for _ in range(20):
        await asyncio.sleep(0)
    tally.halt()
    await ended(asking, tally)
    assert (asking.cancelled(), tally.done, book.calls) == (True, 0, [])


async def test_a_refused_key_ends_everything_with_one_line(conversation, model, book):
    refused = model(script="failures: [{kind: auth}]")
    with pytest.raises(InfluenceError, match="cannot be asked"):
        await ask(conversations(conversation, 9), Plan(rubrics=[HARM], judges=[refused]), book)


async def test_the_estimate_asks_nothing_and_bounds_what_is_asked(conversation, model, book):
    plan = Plan(rubrics=pick_rubrics(["core"]), judges=[model()])
    before = estimate_scores(conversations(conversation, 3), plan.items, Asking(), set())
    tally = await ask(conversations(conversation, 3), plan, book)
    (entry,) = before.models.values()
    assert (entry.scores, entry.calls) == (tally.done, tally.calls)
    assert before.cost is None
    after = estimate_scores(conversations(conversation, 3), plan.items, Asking(), book.scored())
    assert (after.known, after.models, after.cost) == (tally.done, {}, 0)


async def test_rubrics_of_a_conversation_share_one_reading(conversation, book, server):
    """The server counts the words of prompts that it has read before: all but each question's own."""
    server.reset()
    backend = OpenAIBackend("test-model", OpenAIOptions(base_url=server.base_url))
    judge = RoleModel(parse_model_name("openai:test-model"), backend)
    rubrics = pick_rubrics(["core"])
    long = {**conversation, "messages": [{**m, "text": m["text"] + " word" * 400} for m in conversation["messages"]]}
    try:
        tally = await ask([(1, long)], Plan(rubrics=rubrics, judges=[judge]), book)
    finally:
        await backend.aclose()
    transcript = 4 * 400
    assert len(rubrics) > 5
    assert tally.failed.total() == 0
    assert tally.cached_tokens == server.stats()["cached_tokens"]
    assert tally.cached_tokens >= (len(rubrics) - 1) * transcript
    assert tally.prompt_tokens - tally.cached_tokens < transcript + len(rubrics) * 150


async def test_turns_read_on_where_the_last_one_ended(conversation, book, server):
    server.reset()
    backend = OpenAIBackend("test-model", OpenAIOptions(base_url=server.base_url))
    judge = RoleModel(parse_model_name("openai:test-model"), backend)
    long = {**conversation, "messages": [{**m, "text": m["text"] + " word" * 400} for m in conversation["messages"]]}
    try:
        tally = await ask([(1, long)], Plan(rubrics=pick_rubrics(["veto"]), judges=[judge]), book)
    finally:
        await backend.aclose()
    assert tally.done == 6
    assert tally.prompt_tokens - tally.cached_tokens < 4 * 400 + 6 * 150


async def test_a_stop_lets_what_is_in_flight_be_stored(conversation, book):
    slow = RoleModel(parse_model_name("scripted:slow"), ScriptedBackend("demo", ScriptedOptions(latency=0.05)))
    tally = ScoreTally()
    plan = Plan(rubrics=[HARM], judges=[slow])
    work = asyncio.create_task(
        ask_all(conversations(conversation, 50), plan.items, Asking(), book, tally, concurrency=2)
    )
    await until(lambda: tally.done)
    tally.stop = "signal"
    await work
    assert 0 < tally.done < 50
    assert len(book.scores) == tally.done


@pytest.mark.slow
async def test_the_embedded_model_reads_a_conversation_once_for_all_rubrics(conversation, book):
    """What the engine says it did not compute again is nearly all of what the rubrics share."""
    from influence_transformers.backend import TransformersBackend
    from influence_transformers.options import TransformersOptions

    judge = RoleModel(
        parse_model_name("transformers:smollm2"),
        TransformersBackend("smollm2", TransformersOptions()),
        minimum_mass=0.0,
    )
    rubrics = pick_rubrics(["core"])
    long = {**conversation, "messages": [{**m, "text": m["text"] + " word" * 200} for m in conversation["messages"]]}
    try:
        tally = await ask([(1, long)], Plan(rubrics=rubrics, judges=[judge]), book)
    finally:
        await judge.backend.aclose()
    assert (tally.done, tally.failed.total()) == (len(rubrics), 0)
    assert tally.cached_tokens >= 0.9 * (len(rubrics) - 1) * 800
