"""Runs as logs of Inspect AI: its reader opens them, and they come back as they were."""

import json
import subprocess
import sys
from collections import defaultdict
from statistics import fmean

import pytest

pytest.importorskip("inspect_ai", reason="inspect-ai is not installed: pip install 'influence-cli[inspect]'")

from hypothesis import given, settings
from hypothesis import strategies as st
from inspect_ai.log import list_eval_logs, read_eval_log

from influence_cli.schemas.messages import ToolCall
from influence_cli.schemas.records import EpisodeKey, EpisodeRecord, MessageRecord, ScoreRecord, TrajectoryEnd
from influence_cli.store.imports.inspect_logs import log_conversations
from influence_inspect.messages import stored_messages
from influence_inspect.samples import rubric_scores, sample_id, stored_data

FAILS = """
failures:
  - {role: preference, contains: coffee, kind: refused}
"""


@pytest.fixture
def scored_run(influence, place, tiny_folder, repository):
    """Conversations with and without tools, two of some states, judged by rubrics."""
    booking = repository / "environments" / "booking"
    where = ("--env", tiny_folder, "--env", booking, "--n", "16", "--samples", "2", "--turns", "3")
    assert influence("simulate", *where, "-m", "scripted:demo", "--out", "runs/made", "-q").exit_code == 0
    rubrics = ("--with", "sycophancy,computed", "--judge", "scripted:demo")
    assert influence("score", "runs/made", *rubrics, "-q").exit_code == 0
    return place / "runs" / "made"


@pytest.mark.parametrize("suffix", ["eval", "json"])
def test_a_run_comes_back_as_it_was(influence, place, scored_run, contents, suffix):
    out = place / f"run.{suffix}"
    told = influence("export", "runs/made", "--to", "inspect", "--out", out, "--json")
    assert json.loads(told.stdout)["trajectories"] == 16
    assert influence("import", out, "--out", "runs/back").exit_code == 0
    before, after = contents(scored_run), contents(place / "runs" / "back")
    assert after[0] == before[0]
    assert {name: sorted(map(repr, kept[0])) for name, kept in after[1].items()} == {
        name: sorted(map(repr, kept[0])) for name, kept in before[1].items()
    }
    assert {name: kept[1:] for name, kept in after[1].items()} == {name: kept[1:] for name, kept in before[1].items()}
    assert influence("export", "runs/back", "--to", "inspect", "--out", place / f"again.{suffix}").exit_code == 0
    first, second = (samples_of(read_eval_log(str(place / f"{name}.{suffix}"))) for name in ("run", "again"))
    assert second == first


def samples_of(log):
    """What was said and scored, by sample."""
    return {
        (sample.id, sample.epoch): (
            [(m.role, m.text, m.source) for m in sample.messages],
            {name: score.value for name, score in sample.scores.items()},
            sample.metadata,
        )
        for sample in log.samples
    }


def test_inspects_reader_finds_everything_in_its_own_places(influence, place, scored_run, contents):
    influence("export", "runs/made", "--to", "inspect")
    (found,) = list_eval_logs(str(place), recursive=False)
    assert found.task == "booking+tiny"
    log = read_eval_log(found.name)
    assert (log.status, log.eval.model) == ("success", "scripted:demo")
    assert (log.results.total_samples, log.results.completed_samples) == (16, 16)
    assert log.eval.metadata["config"]["seed"] == 0
    trajectories, _ = contents(scored_run)
    preference = next(score for score in log.results.scores if score.name == "preference")
    by_state, gameable = defaultdict(list), defaultdict(list)
    for each in trajectories:
        place_of = (each["environment"], each["scenario"], each["initial_state"])
        by_state[place_of].append(each["mean_rating"])
        if each["population"] == "gameable":
            gameable[place_of].append(each["mean_rating"])
    assert preference.metrics["mean"].value == pytest.approx(fmean(map(fmean, by_state.values())))
    assert preference.metrics["mean_gameable"].value == pytest.approx(fmean(map(fmean, gameable.values())))
    assert preference.metrics["stderr"].value > 0.0
    sample = next(each for each in log.samples if each.metadata["environment"] == "booking")
    assert {"scenario", "initial_state", "population", "cue", "split"} <= set(sample.metadata)
    assert sample.input == sample.messages[: len(sample.input)]
    assert {"preference", "veto", "sycophancy", "reply-length"} <= set(sample.scores)
    assert sample.scores["preference"].metadata["by_turn"]["1"] is not None
    used = sum(usage.total_tokens for usage in sample.role_usage.values())
    assert used == sum(usage.total_tokens for usage in sample.model_usage.values()) > 0


@pytest.mark.slow
def test_inspects_command_line_lists_and_dumps_it(influence, place, scored_run):
    influence("export", "runs/made", "--to", "inspect", "--out", place / "run.eval")
    listed = inspect(place, "log", "list", "--json")
    assert [entry["task"] for entry in json.loads(listed)] == ["booking+tiny"]
    dumped = json.loads(inspect(place, "log", "dump", "run.eval"))
    assert len(dumped["samples"]) == 16


def inspect(place, *arguments):
    """The real command line of Inspect."""
    command = [sys.executable, "-m", "inspect_ai", *arguments, *(["--log-dir", "."] if "list" in arguments else [])]
    return subprocess.run(command, cwd=place, check=True, capture_output=True, text=True).stdout


def test_failures_stay_failures(influence, place, tiny_folder, contents):
    (place / "script.yaml").write_text(FAILS)
    where = ("--env", tiny_folder, "--n", "8", "--set", "max_failed_share=1", "--out", "runs/made", "-q")
    influence("simulate", *where, "-m", f"scripted:{place / 'script.yaml'}")
    influence("export", "runs/made", "--to", "inspect", "--out", place / "run.eval")
    log = read_eval_log(str(place / "run.eval"))
    failed = [sample for sample in log.samples if sample.error is not None]
    assert 0 < len(failed) < 8
    assert log.results.completed_samples == 8 - len(failed)
    assert all("refused" in sample.error.message for sample in failed)
    influence("import", "run.eval", "--out", "runs/back")
    before, after = contents(place / "runs" / "made"), contents(place / "runs" / "back")
    assert after == before


def test_what_had_not_ended_is_shown_and_not_taken_for_a_conversation(influence, place, tiny_folder):
    import sqlite3
    from contextlib import closing

    influence("simulate", "--env", tiny_folder, "--n", "4", "-m", "scripted:demo", "--out", "runs/made", "-q")
    with closing(sqlite3.connect(place / "runs" / "made" / "run.db")) as database, database:
        database.execute("UPDATE trajectory SET status = 'running', reason = NULL WHERE episode_id = 1")
    influence("export", "runs/made", "--to", "inspect", "--out", place / "run.eval")
    errors = [sample.error.message for sample in read_eval_log(str(place / "run.eval")).samples if sample.error]
    assert errors == ["The conversation had not ended when the run was exported."]
    told = influence("import", "run.eval", "--out", "runs/back")
    assert "3 conversations" in told.stdout
    assert "had not ended" in told.stderr


def test_another_name_for_a_log_is_refused_and_leaves_nothing(influence, place, tiny_folder):
    influence("simulate", "--env", tiny_folder, "--n", "2", "-m", "scripted:demo", "--out", "runs/made", "-q")
    told = influence("export", "runs/made", "--to", "inspect", "--out", place / "run.txt")
    assert told.exit_code == 2
    assert "*.eval or *.json" in told.stderr
    assert [path.name for path in place.iterdir()] == ["runs"]


texts = st.text(max_size=60) | st.sampled_from(["attachment://" + "0" * 32, "\x1b[31m", "<|im_end|>", "nan", ""])
turns = st.integers(0, 5)
calls = st.lists(
    st.builds(ToolCall, id=st.text("abc", min_size=1, max_size=3), name=st.just("book"), arguments=st.just({"a": [1]})),
    max_size=2,
).map(tuple)
messages = st.one_of(
    st.builds(
        MessageRecord, turn=turns, speaker=st.just("agent"), text=texts, state=texts, tool_calls=calls,
        finish_reason=st.sampled_from([None, "stop", "length"]),
    ),
    st.builds(MessageRecord, turn=turns, speaker=st.just("user"), text=texts, state=texts, source=st.just("scenario")),
    st.builds(MessageRecord, turn=turns, speaker=st.just("system"), text=texts, state=texts, source=st.just("scenario")),
    st.builds(
        MessageRecord, turn=turns, speaker=st.just("tool"), text=texts, state=texts, source=st.just("tool"),
        tool_call_id=st.text("abc", min_size=1, max_size=3), outcome=st.sampled_from(["success", "failure", None]),
    ),
)  # fmt: skip
scores = st.builds(
    ScoreRecord,
    turn=turns,
    rubric=st.sampled_from(["sycophancy", "preference", "veto"]),
    rubric_hash=st.just("h"),
    judge=st.sampled_from(["openai:a", "openai:b"]),
    method=st.just("distribution"),
    value=st.none() | st.floats(-9, 9),
    usable=st.booleans(),
    rationale=st.none() | texts,
)


@settings(max_examples=40)
@given(st.lists(messages, max_size=6), st.lists(scores, max_size=4))
def test_any_conversation_survives_being_a_sample(said, scored):
    record = EpisodeRecord(key=EpisodeKey(environment="e", scenario="s", initial_state="i"), seed=2**62)
    end = TrajectoryEnd(status="complete", reason="turn_limit", state="x", turns=1, mean_rating=1 / 3)
    sample = {
        "id": sample_id(record),
        "epoch": 1,
        "messages": [json.loads(each.model_dump_json()) for each in stored_messages(said, "m")],
        "store": {"influence": stored_data(record, (), (), end)},
        "scores": {name: json.loads(score.model_dump_json()) for name, score in rubric_scores(scored).items()},
    }
    (found,) = log_conversations(({"eval": {"task": "t"}}, iter([("here", sample)])), None)
    assert found.messages == tuple(said)
    assert (found.record, found.end) == (record, end)
    assert sorted(map(repr, found.scores)) == sorted(map(repr, scored))
