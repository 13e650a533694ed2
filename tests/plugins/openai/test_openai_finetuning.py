"""Fine-tuning by a provider: uploaded, created, waited for, taken up again, and loud where it fails."""

import json
import logging
from pathlib import Path

import pytest

from influence_cli.errors import InfluenceError
from influence_cli.listening import Unwatched
from influence_cli.plugins.registry import make_registry
from influence_cli.schemas.messages import ChatMessage, ToolCall
from influence_cli.schemas.requests import ToolSchema
from influence_cli.schemas.training import TrainingJob, TrainingRow
from influence_cli.sittings.sources import Sources
from influence_cli.sittings.train import begin, go, take_up
from influence_cli.testing.server import serve
from influence_openai.finetuning import FineTuneOptions, OpenAIFineTune, examples

HEARD = Unwatched()
TOOL = ToolSchema(name="look", description="Look.", parameters={"type": "object"})


def row(number: int, **changes) -> TrainingRow:
    facts = {
        "episode_id": number,
        "environment": "e",
        "scenario": "s",
        "initial_state": f"i{number}",
        "sample": 0,
        "turn": 2,
        "messages": (
            ChatMessage(role="system", content="Be brief."),
            ChatMessage(role="user", content="Hello."),
            ChatMessage(role="assistant", content="Written beforehand."),
            ChatMessage(role="user", content="Go on."),
            ChatMessage(role="assistant", content=f"Reply {number}."),
        ),
        "learnt": (4,),
        "reward": 5.0,
        "desirable": True,
    }
    return TrainingRow(**{**facts, **changes})


@pytest.fixture
def job(tmp_path):
    def make(count: int = 12, **changes) -> TrainingJob:
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(row(number).model_dump_json() + "\n" for number in range(count)))
        folder = tmp_path / "job"
        folder.mkdir(exist_ok=True)
        facts = {"iteration": 3, "base": "openai:test-model", "rows": str(path), "folder": str(folder), "seed": 7}
        return TrainingJob(**{**facts, **changes})

    return make


@pytest.fixture
def tuned():
    """A server of its own: jobs and files stay on it."""
    with serve() as server:
        yield server


def learner(server, **options) -> OpenAIFineTune:
    return OpenAIFineTune(FineTuneOptions(base_url=server.base_url, poll=0.01, **options))


def told(share: float, words: str) -> None:
    assert 0.0 <= share <= 1.0


def test_rows_are_uploaded_and_the_model_made_of_them_is_returned(tuned, job):
    outcome = learner(tuned).train(job(), told)
    assert outcome.adapter == "ft:test-model:org::ftjob-1"
    assert outcome.digest == "ftjob-1/ft:test-model:org::ftjob-1"
    assert (outcome.rows, outcome.moved) == (12, None)
    assert outcome.tokens > 0
    assert outcome.losses == tuple(2.0 / step for step in range(1, 13))
    found = tuned.tuning()
    assert [message.get("weight") for message in found["files"]["file-1"][0]["messages"]] == [None, None, 0, None, 1]
    asked = found["jobs"]["ftjob-1"]
    assert asked["hyperparameters"] == {"n_epochs": 1, "batch_size": 16, "learning_rate_multiplier": 3.0}
    assert asked["seed"] == 7


def test_training_begins_with_the_model_of_the_iteration_before(tuned, job):
    first = learner(tuned).train(job(), told)
    other = job(adapter=first.adapter, folder=f"{job().folder}-2")
    Path(other.folder).mkdir()
    second = learner(tuned).train(other, told)
    assert tuned.tuning()["jobs"]["ftjob-2"]["model"] == first.adapter
    assert second.adapter != first.adapter


@pytest.mark.parametrize("lost", ["nothing", "job", "all"])
def test_a_restart_pays_for_no_second_job(tuned, job, lost):
    def broken(share, words):
        raise KeyboardInterrupt

    asked = job()
    with pytest.raises(KeyboardInterrupt):
        learner(tuned).train(asked, broken)
    state = Path(asked.folder) / "openai.json"
    kept = json.loads(state.read_text())
    assert kept == {"file": "file-1", "job": "ftjob-1"}
    if lost == "job":  # broken off after the job was made and before it was written down
        state.write_text(json.dumps({"file": "file-1"}))
    elif lost == "all":
        state.unlink()
    outcome = learner(tuned).train(asked, told)
    jobs = len(tuned.tuning()["jobs"])
    assert jobs == (2 if lost == "all" else 1)
    assert outcome.adapter == f"ft:test-model:org::ftjob-{jobs}"


@pytest.mark.parametrize("kept", [b"", b'{"file": "fi', b'["ftjob-1"]'])
def test_a_damaged_record_of_the_job_is_one_error_and_pays_for_none(tuned, job, kept):
    asked = job()
    (Path(asked.folder) / "openai.json").write_bytes(kept)
    with pytest.raises(InfluenceError, match=r"openai\.json does not tell which fine-tuning job was made\. Write "):
        learner(tuned).train(asked, told)
    assert (tuned.tuning()["jobs"], tuned.tuning()["files"]) == ({}, {})


@pytest.mark.parametrize(
    ("ends", "said"),
    [
        ("failed", "The fine-tuning job ftjob-1 failed: The job failed on the server.."),
        ("cancelled", "The fine-tuning job ftjob-1 was cancelled: no reason was given."),
    ],
)
def test_a_job_that_fails_is_an_error_and_the_next_try_makes_another(tuned, job, ends, said):
    tuned.configure(tuning_ends=ends)
    with pytest.raises(InfluenceError) as error:
        learner(tuned).train(job(), told)
    assert str(error.value).startswith(said.replace("..", "."))
    tuned.configure(tuning_ends="succeeded")
    assert learner(tuned).train(job(), told).adapter == "ft:test-model:org::ftjob-2"
    assert len(tuned.tuning()["files"]) == 1


def test_too_few_rows_are_refused_by_the_provider_and_told(tuned, job):
    with pytest.raises(InfluenceError, match="must have at least 10 examples"):
        learner(tuned).train(job(3), told)


def test_an_unknown_model_or_a_wrong_key_is_told_in_one_line(tuned, job, monkeypatch):
    with pytest.raises(InfluenceError, match="refused to fine-tune: .*does not exist"):
        learner(tuned).train(job(base="openai:other"), told)
    tuned.configure(api_key="right")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-wrongwrongwrongwrong")
    with pytest.raises(InfluenceError) as error:
        learner(tuned).train(job(), told)
    assert "wrongwrong" not in str(error.value)
    assert "\n" not in str(error.value)


def test_a_model_of_another_backend_is_refused(tuned, job):
    with pytest.raises(InfluenceError, match="cannot train transformers:smollm2"):
        learner(tuned).train(job(base="transformers:smollm2"), told)


def test_a_job_that_takes_too_long_is_left_to_be_taken_up(tuned, job):
    tuned.configure(tuning_looks=1000)
    with pytest.raises(InfluenceError, match="has not ended in"):
        learner(tuned, patience=1e-5).train(job(), told)
    tuned.configure(tuning_looks=0)
    assert learner(tuned).train(job(), told).adapter == "ft:test-model:org::ftjob-1"


def test_tool_calls_and_their_results_are_in_the_providers_shape(tmp_path):
    call = ToolCall(id="c1", name="look", arguments={"what": "tea"})
    messages = (
        ChatMessage(role="user", content="Look."),
        ChatMessage(role="assistant", content="", tool_calls=(call,)),
        ChatMessage(role="tool", content="found", tool_call_id="c1"),
        ChatMessage(role="assistant", content="There."),
    )
    path = tmp_path / "rows.jsonl"
    path.write_text(row(1, messages=messages, learnt=(1, 3), tools=(TOOL,)).model_dump_json() + "\n")
    (example,) = examples(path)
    assert example["tools"][0]["function"]["name"] == "look"
    assert example["messages"][1]["tool_calls"][0]["function"] == {"name": "look", "arguments": '{"what":"tea"}'}
    assert example["messages"][2] == {"role": "tool", "content": "found", "tool_call_id": "c1"}
    assert [message.get("weight") for message in example["messages"]] == [None, 1, None, 1]


def test_the_loop_talks_with_the_model_that_was_made(tuned, tmp_path, tiny_folder, caplog):
    flags = {
        "environments": [str(tiny_folder)],
        "default.model": "scripted:demo",
        "roles.agent.model": "openai:test-model",
        "default.options": {"base_url": tuned.base_url},
        "algorithm.name": "openai-finetune",
        "algorithm.options": {"base_url": tuned.base_url, "poll": 0.01},
        "iterations": 2,
        "samples": 8,
        "selection.fraction": "1/2",
        "turns": 1,
    }
    with caplog.at_level(logging.WARNING):
        result = go(begin(make_registry(), Sources(flags), tmp_path / "run", HEARD), HEARD)
    agents = ["openai:test-model", "openai:ft:test-model:org::ftjob-1", "openai:ft:test-model:org::ftjob-2"]
    assert [found["agent"] for found in result.iterations] == agents
    spoke = tuned.stats()
    assert spoke["requests"] > 0
    again = go(take_up(make_registry(), str(tmp_path / "run"), Sources(), HEARD), HEARD)
    assert again.iterations == result.iterations
    assert tuned.stats()["requests"] == spoke["requests"]
