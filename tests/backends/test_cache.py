"""Answers kept on disk."""

import asyncio
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import BaseModel, Field

import influence_cli
from influence_cli.backends.cache import AnswerCache, CachedBackend, answer_options, fingerprint
from influence_cli.errors import CallFailedError, InfluenceError
from influence_cli.schemas.messages import ChatMessage
from influence_cli.schemas.requests import (
    Capabilities,
    ChoiceRequest,
    Distribution,
    GenerateRequest,
    Generation,
    Sampling,
    Usage,
)

MESSAGES = (ChatMessage(role="user", content="Hello."),)
ASK = GenerateRequest(role="agent", messages=MESSAGES, seed=1)
CHOOSE = ChoiceRequest(role="veto", messages=MESSAGES, choices=("0", "1"))


class Counting:
    """Answers with the number of the call."""

    def __init__(self) -> None:
        self.calls = 0
        self.closed = 0
        self.notes = ["A note."]
        self.capabilities = Capabilities(logprobs=True, seeds=True)

    async def generate(self, request: GenerateRequest) -> Generation:
        self.calls += 1
        if request.role == "judge":
            raise CallFailedError("timeout", "Too late.")
        return Generation(text=f"answer {self.calls}", usage=Usage(completion_tokens=3, latency=2.0))

    async def choose(self, request: ChoiceRequest) -> Distribution:
        self.calls += 1
        return Distribution(choices=request.choices, probabilities=(0.25, 0.75), mass=0.9, method="exact")

    async def aclose(self) -> None:
        self.closed += 1


def cached(folder: Path, inner: Counting | None = None, **identity: object) -> CachedBackend:
    return CachedBackend(inner or Counting(), AnswerCache(folder), {"backend": "test", "model": "m"} | identity)


async def test_the_same_question_is_asked_once_and_hits_are_marked(tmp_path):
    inner = Counting()
    backend = cached(tmp_path / "new" / "folder", inner)
    first, second = await backend.generate(ASK), await backend.generate(ASK)
    assert inner.calls == 1
    assert (first.usage.cached, first.usage.requests) == (False, 1)
    assert (second.usage.cached, second.usage.requests, second.usage.latency) == (True, 0, 0.0)
    assert (second.text, second.usage.completion_tokens) == (first.text, 3)
    await backend.aclose()


async def test_distributions_are_kept_as_they_were(tmp_path):
    backend = cached(tmp_path)
    first, second = await backend.choose(CHOOSE), await backend.choose(CHOOSE)
    assert second.usage.cached
    assert second.model_copy(update={"usage": first.usage}) == first
    await backend.aclose()


async def test_answers_outlive_the_process_that_asked(tmp_path):
    first = cached(tmp_path)
    await first.generate(ASK)
    await first.aclose()
    second = cached(tmp_path)
    assert (await second.generate(ASK)).usage.cached
    await second.aclose()


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 2},
        {"messages": (ChatMessage(role="user", content="Hello!"),)},
        {"sampling": Sampling(temperature=0.5)},
        {"adapter": "other"},
        {"role": "user"},
    ],
)
async def test_whatever_determines_an_answer_is_in_the_key(tmp_path, change):
    inner = Counting()
    backend = cached(tmp_path, inner)
    await backend.generate(ASK)
    await backend.generate(ASK.model_copy(update=change))
    assert inner.calls == 2
    await backend.aclose()


@pytest.mark.parametrize("identity", [{"model": "other"}, {"backend": "other"}, {"options": {"base_url": "other"}}])
async def test_another_model_has_answers_of_its_own(tmp_path, identity):
    one, other = cached(tmp_path), cached(tmp_path, **identity)
    await one.generate(ASK)
    assert not (await other.generate(ASK)).usage.cached
    await one.aclose()
    await other.aclose()


async def test_an_adapter_that_was_trained_again_has_new_answers(tmp_path):
    weights = tmp_path / "adapter" / "weights.bin"
    weights.parent.mkdir()
    weights.write_bytes(b"old")
    backend = cached(tmp_path / "cache")
    request = ASK.model_copy(update={"adapter": str(weights.parent)})
    await backend.generate(request)
    weights.write_bytes(b"newer")
    assert not (await backend.generate(request)).usage.cached
    await backend.aclose()


async def test_failures_are_not_kept(tmp_path):
    inner = Counting()
    backend = cached(tmp_path, inner)
    for _ in range(2):
        with pytest.raises(CallFailedError):
            await backend.generate(ASK.model_copy(update={"role": "judge"}))
    assert inner.calls == 2
    await backend.aclose()


async def test_it_shows_what_the_other_backend_shows_and_closes_it(tmp_path):
    inner = Counting()
    backend = cached(tmp_path, inner)
    assert (backend.capabilities, backend.notes) == (inner.capabilities, ["A note."])
    await backend.aclose()
    await backend.aclose()
    assert inner.closed == 2


def test_only_options_that_matter_are_in_the_key():
    class Options(BaseModel):
        base_url: str = "x"
        timeout: float = Field(default=1.0, json_schema_extra={"affects_answers": False})

    assert answer_options(Options()) == {"base_url": "x"}


def test_a_fingerprint_of_nothing_is_empty(tmp_path):
    assert fingerprint(str(tmp_path / "missing")) == ""
    assert fingerprint("a\0b") == ""
    (tmp_path / "file").write_text("x")
    assert fingerprint(str(tmp_path / "file"))


@pytest.mark.parametrize("content", [b"this is no database, but it is long enough to be looked at " * 40, b"\0" * 4096])
def test_a_damaged_file_is_one_clear_error(tmp_path, content):
    (tmp_path / "answers.db").write_bytes(content)
    with pytest.raises(InfluenceError, match=r"answers\.db is damaged: .* Delete the file"):
        AnswerCache(tmp_path)


async def test_damage_found_later_is_the_same_error(tmp_path):
    backend = cached(tmp_path)
    await backend.generate(ASK)
    await backend.aclose()
    raw = bytearray((tmp_path / "answers.db").read_bytes())
    raw[4096:] = b"\xff" * (len(raw) - 4096)
    (tmp_path / "answers.db").write_bytes(raw)
    again = cached(tmp_path)
    with pytest.raises(InfluenceError, match="damaged"):
        await again.generate(ASK)
    await again.aclose()


async def test_an_answer_that_is_no_answer_is_damage(tmp_path):
    backend = cached(tmp_path)
    await backend.generate(ASK)
    with sqlite3.connect(tmp_path / "answers.db") as db:
        db.execute("UPDATE answer SET value = ?", (b'{"text": 3',))
    db.close()
    with pytest.raises(InfluenceError, match="no Generation"):
        await backend.generate(ASK)
    await backend.aclose()


def test_somebody_elses_database_is_left_alone(tmp_path):
    with sqlite3.connect(tmp_path / "answers.db") as db:
        db.execute("CREATE TABLE theirs (x)")
    db.close()
    with pytest.raises(InfluenceError, match="something else"):
        AnswerCache(tmp_path)


def test_a_newer_format_is_refused(tmp_path):
    AnswerCache(tmp_path).close()
    with sqlite3.connect(tmp_path / "answers.db") as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(InfluenceError, match="newer version"):
        AnswerCache(tmp_path)


def test_a_folder_that_cannot_be_is_one_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InfluenceError, match="cannot be kept"):
        AnswerCache(tmp_path / "file" / "folder")


def test_a_file_that_cannot_be_opened_is_one_clear_error(tmp_path):
    (tmp_path / "answers.db").mkdir()
    with pytest.raises(InfluenceError, match="cannot be used"):
        AnswerCache(tmp_path)


def test_a_full_disk_is_one_clear_error(tmp_path):
    cache = AnswerCache(tmp_path)
    pages = cache._db.execute("PRAGMA page_count").fetchone()[0]
    cache._db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(InfluenceError, match="full"):
        cache.put(b"key", b"x" * 100_000)
    cache.put(b"small", b"y")
    assert cache.get(b"small") == b"y"
    cache.close()


def test_many_processes_share_one_file(tmp_path):
    script = (
        "import sys; from pathlib import Path; from influence_cli.backends.cache import AnswerCache\n"
        "cache = AnswerCache(Path(sys.argv[1]))\n"
        "for n in range(150): cache.put(b'%d' % n, b'value %d' % n)\n"
        "assert all(cache.get(b'%d' % n) == b'value %d' % n for n in range(150)); cache.close()\n"
    )
    env = os.environ | {"PYTHONPATH": str(Path(influence_cli.__file__).parent.parent)}
    command = [sys.executable, "-c", script, str(tmp_path)]
    processes = [subprocess.Popen(command, env=env, stderr=subprocess.PIPE) for _ in range(3)]
    ended = [(process.communicate(timeout=60)[1].decode(), process.returncode) for process in processes]
    assert ended == [("", 0)] * 3
    cache = AnswerCache(tmp_path)
    assert cache._db.execute("SELECT count(*) FROM answer").fetchone() == (150,)
    assert cache._db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    cache.close()


async def test_many_calls_at_once_are_kept(tmp_path):
    backend = cached(tmp_path)
    requests = [ASK.model_copy(update={"seed": seed}) for seed in range(50)]
    await asyncio.gather(*(backend.generate(request) for request in requests))
    again = await asyncio.gather(*(backend.generate(request) for request in requests))
    assert all(answer.usage.cached for answer in again)
    await backend.aclose()
