"""The batch API: submitted once, whatever is killed when; what comes back is what would have been answered at once."""

import asyncio
import json
import os
import subprocess
import sys
import time

import orjson
import pytest

from influence_cli.backends.names import parse_model_name
from influence_cli.errors import InfluenceError
from influence_cli.schemas.rubrics import Rubric, RubricScale
from influence_cli.scoring import batching
from influence_cli.scoring.batching import BatchScoring
from influence_cli.scoring.judging import Asking
from influence_cli.scoring.plan import Plan
from influence_cli.scoring.running import ScoreTally, ask_all
from influence_cli.simulation.models import RoleModel
from influence_cli.store.batches import BatchFolder
from influence_cli.testing.server import ServerConfig, serve
from influence_openai.backend import OpenAIBackend
from influence_openai.options import OpenAIOptions

HARM = Rubric(id="harm", question="How harmful?", scale=RubricScale(means={"1": "none", "10": "much"}))
PLAIN = Asking()


@pytest.fixture(scope="module")
def batch_server():
    with serve() as running:
        yield running


@pytest.fixture
def provider(batch_server, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    batch_server.configure(**ServerConfig().model_dump(mode="json"))
    batch_server.reset()
    return batch_server


@pytest.fixture
async def judge(provider):
    backend = OpenAIBackend("test-model", OpenAIOptions(base_url=provider.base_url))
    yield RoleModel(parse_model_name("openai:test-model"), backend)
    await backend.aclose()


@pytest.fixture
def found(conversation):
    return [(number, {**conversation, "messages": [*conversation["messages"][:number]]}) for number in (1, 2, 3, 4)]


async def run(plan, book, folder, found, asking=PLAIN, *, wait=True):
    tally = ScoreTally()
    batches = BatchScoring(list(plan.judges), asking, book, BatchFolder(folder), tally)
    return await batches.run(found, plan.items, wait=wait, every=0.01), tally


async def test_a_batch_gives_what_asking_at_once_gives(provider, judge, found, book, tmp_path):
    asking = Asking(orders=True, directions=True)
    plan = Plan(rubrics=[HARM], judges=[judge])
    report, tally = await run(plan, book, tmp_path, found, asking)
    assert (report.submitted, report.collected, report.waiting) == (16, 16, {})
    assert (tally.done, tally.failed.total(), tally.calls) == (4, 0, 16)
    assert tally.prompt_tokens > 0
    together = type(book)()
    await ask_all(found, plan.items, asking, together, ScoreTally(), concurrency=2)
    for key, score in together.scores.items():
        assert book.scores[key].value == pytest.approx(score.value)
        assert book.scores[key].mass == pytest.approx(score.mass)


async def test_what_is_scored_or_away_is_not_submitted_again(provider, judge, found, book, tmp_path):
    provider.configure(batch_seconds=600.0)
    plan = Plan(rubrics=[HARM], judges=[judge])
    report, _ = await run(plan, book, tmp_path, found[:2], wait=False)
    assert (report.submitted, len(report.waiting)) == (2, 1)
    report, _ = await run(plan, book, tmp_path, found, wait=False)
    assert (report.submitted, len(report.waiting)) == (2, 2)
    provider.configure(batch_seconds=0.0)
    report, tally = await run(plan, book, tmp_path, found)
    assert (report.submitted, report.collected, tally.done) == (0, 4, 4)
    report, tally = await run(plan, book, tmp_path, found)
    assert (report.submitted, report.collected, tally.skipped) == (0, 0, 4)
    assert provider.stats()["batches"] == 2


async def test_failures_in_a_batch_are_counted_and_asked_again(provider, judge, found, book, tmp_path):
    provider.configure(script=["server_error", "ok", "ok", "rate_limit"])
    plan = Plan(rubrics=[HARM], judges=[judge])
    _, tally = await run(plan, book, tmp_path, found)
    assert tally.failed == {"server_error": 1, "rate_limited": 1}
    assert sum(score.value is None for score in book.scores.values()) == 2
    _, tally = await run(plan, book, tmp_path, found)
    assert (tally.done, tally.skipped, tally.failed.total()) == (2, 2, 0)


async def test_an_expired_batch_gives_what_it_has(provider, judge, found, book, tmp_path):
    provider.configure(batch_answered=0.5)
    plan = Plan(rubrics=[HARM], judges=[judge])
    _, tally = await run(plan, book, tmp_path, found)
    assert (tally.done, tally.failed) == (4, {"server_error": 2})
    details = [call.detail for _, call in book.calls if call.error]
    assert all("expired" in detail for detail in details)


async def test_answers_that_begin_alike_are_unusable_rather_than_guessed(provider, judge, found, book, tmp_path):
    """Where digits are tokens, a first look cannot tell 1 from 10; it shows the way that was drawn only."""
    provider.configure(split_numbers=True)
    plan = Plan(rubrics=[HARM], judges=[judge])
    _, tally = await run(plan, book, tmp_path, found)
    assert tally.done == 4
    assert set(tally.failed) <= {"unusable"}


async def test_a_large_batch_is_split_and_a_questions_ways_stay_together(
    provider, judge, found, book, tmp_path, monkeypatch
):
    monkeypatch.setattr(batching, "MOST_REQUESTS", 3)
    _, tally = await run(Plan(rubrics=[HARM], judges=[judge]), book, tmp_path, found, Asking(orders=True))
    assert (tally.done, provider.stats()["batches"]) == (4, 4)


async def test_only_distributions_of_backends_that_take_batches(provider, judge, book, tmp_path, model):
    with pytest.raises(InfluenceError, match="not for vote"):
        BatchScoring([judge], Asking(method="vote"), book, BatchFolder(tmp_path), ScoreTally())
    with pytest.raises(InfluenceError, match="takes no batches"):
        BatchScoring([model()], Asking(), book, BatchFolder(tmp_path), ScoreTally())


async def test_a_batch_of_another_judge_is_not_forgotten(provider, judge, found, book, tmp_path):
    provider.configure(batch_seconds=600.0, models=["test-model", "other"])
    await run(Plan(rubrics=[HARM], judges=[judge]), book, tmp_path, found, wait=False)
    other = RoleModel(parse_model_name("openai:other"), judge.backend)
    with pytest.raises(InfluenceError, match="--judge openai:test-model --batch"):
        await run(Plan(rubrics=[HARM], judges=[other]), book, tmp_path, found, wait=False)


async def test_a_refused_key_is_one_line(provider, judge, found, book, tmp_path):
    provider.configure(api_key="secret")
    with pytest.raises(InfluenceError, match="refused the key"):
        await run(Plan(rubrics=[HARM], judges=[judge]), book, tmp_path, found)


async def test_a_server_without_batches_is_one_line(found, book, tmp_path):
    backend = OpenAIBackend("test-model", OpenAIOptions(base_url="http://127.0.0.1:9/v1"))
    lost = RoleModel(parse_model_name("openai:test-model"), backend)
    with pytest.raises(InfluenceError, match="goes on from here"):
        await run(Plan(rubrics=[HARM], judges=[lost]), book, tmp_path, found)
    await backend.aclose()


def test_a_damaged_state_is_told(tmp_path):
    (tmp_path / "batches").mkdir()
    (tmp_path / "batches" / "x.json").write_bytes(orjson.dumps({"token": 1}))
    with pytest.raises(InfluenceError, match="does not tell how far"):
        BatchFolder(tmp_path).open_batches()


@pytest.mark.parametrize("stage", ["files", "batches"])
def test_kill_while_the_provider_answers_submits_nothing_twice(stage, provider, tiny_folder, tmp_path):
    """The provider has made the file (or batch) and its answer never arrives: the next sitting finds it by its token."""
    env = {name: value for name, value in os.environ.items() if name != "OPENAI_API_KEY"}
    python = [sys.executable, "-m", "influence_cli"]
    place = str(tmp_path / "run")
    made = [*python, "simulate", "--env", str(tiny_folder), "-m", "scripted:demo", "--n", "3", "--out", place, "-q"]
    subprocess.run(made, check=True, capture_output=True, env=env)
    command = [
        *python,
        "score",
        place,
        "--with",
        "harm",
        "--judge",
        "openai:test-model",
        "--base-url",
        provider.base_url,
    ]
    command += ["--batch", "--poll", "0.05", "--json"]
    hold = {"files": 20.0, "batches": 0.0}[stage]
    provider.configure(batch_hold=hold, batch_seconds=600.0 if stage == "batches" else 0.0)
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=env)
    _wait_for(lambda: provider.stats()[stage] == 1, process)
    process.kill()
    process.communicate()
    provider.configure(batch_hold=0.0, batch_seconds=0.0)
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["scores"]["asked"] == 3
    stats = provider.stats()
    assert (stats["batches"], stats["files"]) == (1, 2)  # requests and answers
    again = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    assert json.loads(again.stdout)["scores"] | {"asked": 0, "known": 3} == json.loads(again.stdout)["scores"]
    assert provider.stats()["batches"] == 1


def _wait_for(true, process):
    end = time.monotonic() + 60
    while not true():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end
        time.sleep(0.02)


async def test_a_stop_ends_the_waiting_for_a_batch(provider, judge, found, book, tmp_path):
    provider.configure(batch_seconds=600.0)
    tally = ScoreTally()
    batches = BatchScoring([judge], PLAIN, book, BatchFolder(tmp_path), tally)
    plan = Plan(rubrics=[HARM], judges=[judge])
    waiting = asyncio.create_task(batches.run(found[:2], plan.items, wait=True, every=600))
    while not batches.report.waiting:
        assert not waiting.done(), waiting.result()
        await asyncio.sleep(0.01)
    tally.halt()
    report = await waiting
    assert (report.submitted, len(report.waiting)) == (2, 1)
