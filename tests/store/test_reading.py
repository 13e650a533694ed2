"""Figures, exports, checks and merges of a run."""

import io
import json
import os
import shutil
import sqlite3
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from influence_cli.errors import InfluenceError
from influence_cli.store.check import check_run
from influence_cli.store.exporters import STDOUT, ExporterOptions, JsonLines, Parquet
from influence_cli.store.labels import LabelRecord, write_label
from influence_cli.store.merge import merge_shards
from influence_cli.store.queries import run_figures, run_line
from influence_cli.store.reader import RunReader
from influence_cli.store.run_directory import create_run
from influence_cli.store.writer import RunWriter

from .conftest import call, end, episode, judgement, manifest, message, opening, whole_conversation


@pytest.fixture
def filled(run):
    with run.writer() as writer:
        whole_conversation(writer, episode("a"), rating=4.0)
        whole_conversation(writer, episode("b", population="resilient"), rating=8.0)
        i = writer.open_episode(episode("c"), opening())
        writer.add_message(i, call(requests=3, cost=0.1), message())
        writer.add_judgement(i, call(role="preference"), judgement(usable=False, expected=10.0, mass=0.1))
        writer.add_call(i, call(role="veto", error="timeout", detail="slow"))
        writer.finish(i, end(status="failed", reason="failure", failure="timeout", mean_rating=None))
        writer.add_event("stop", {"reason": "signal"})
        writer.set_state("stopped")
    return run


def test_figures_count_what_happened_and_average_what_is_usable(filled):
    with RunReader(filled) as run:
        figures = run_figures(run)
    assert figures["conversations"] == {"total": 3, "complete": 2, "failed": 1, "running": 0}
    assert (figures["rating"]["n"], figures["rating"]["mean"]) == (2, 6.0)
    assert figures["rating"]["sd"] == pytest.approx(8.0**0.5)
    assert [(g["population"], g["mean"]) for g in figures["by_population"]] == [("gameable", 4.0), ("resilient", 8.0)]
    assert figures["by_turn"] == [{"turn": 1, "n": 2, "mean": 6.0, "sd": pytest.approx(8.0**0.5), "veto": 0.1}]
    assert figures["failures"] == [{"kind": "timeout", "n": 1}]
    assert {(u["role"], u["unusable"]) for u in figures["unusable"]} == {("preference", 1), ("veto", 0)}
    agent = next(row for row in figures["calls"] if row["role"] == "agent")
    assert (agent["calls"], agent["retries"], agent["failed"], agent["cost"]) == (3, 2, 0, None)
    assert figures["state"] == "stopped"
    assert figures["events"][0]["kind"] == "stop"


def test_an_export_does_not_tell_which_judge_answered_first(run, tmp_path):
    lines = []
    for name, order in (("one", ("veto", "transition", "preference")), ("two", ("preference", "transition", "veto"))):
        directory = create_run(tmp_path / name, manifest())
        with directory.writer() as writer:
            i = writer.open_episode(episode("a"), opening())
            for role in order:
                writer.add_judgement(i, call(role=role), judgement(role=role))
        with RunReader(directory) as reader:
            lines.append([json.dumps(trajectory) for trajectory in reader.trajectories()])
    assert lines[0] == lines[1]


def test_a_run_without_conversations_has_figures_too(run):
    with run.writer():
        pass
    with RunReader(run) as reader:
        figures, line = run_figures(reader), run_line(reader)
    assert figures["rating"]["n"] == 0
    assert line["mean_rating"] is None
    assert line["state"] == "stopped"


def test_a_run_that_never_began_says_so(run):
    with pytest.raises(InfluenceError, match="holds no conversation yet"):
        RunReader(run)


@pytest.mark.parametrize(
    ("command", "mend"),
    [("simulate", "simulate --resume"), ("train", "train --resume"), ("import", "import FILE --out")],
)
def test_a_run_of_an_older_version_names_the_command_that_brings_it_up_to_date(tmp_path, command, mend):
    run = create_run(tmp_path / "made", manifest(command=command))
    with run.writer() as writer:
        number = whole_conversation(writer, episode())
    with sqlite3.connect(run.database) as db:
        db.execute("PRAGMA user_version = 2")
    db.close()
    told = f"Bring it up to date: influence {mend} {run.path}."
    with pytest.raises(InfluenceError) as reading:
        RunReader(run)
    with pytest.raises(InfluenceError) as labelling:
        write_label(run, LabelRecord(episode_id=number, rubric="harm", value="3", author="ada"))
    assert [str(raised.value).endswith(told) for raised in (reading, labelling)] == [True, True]


def test_json_lines_are_the_documented_object(filled, tmp_path):
    with RunReader(filled) as run:
        assert JsonLines(ExporterOptions()).export(run, tmp_path / "out.jsonl") == 3
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    golden = json.loads((Path(__file__).parent / "trajectory.json").read_text())
    assert lines[0] == golden


def test_json_lines_go_to_stdout(filled, monkeypatch):
    buffer = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(buffer))
    with RunReader(filled) as run:
        JsonLines(ExporterOptions()).export(run, STDOUT)
    assert buffer.getvalue().count(b"\n") == 3


def test_parquet_holds_the_same(filled, tmp_path):
    from pyarrow import parquet

    with RunReader(filled) as run:
        assert Parquet(ExporterOptions()).export(run, tmp_path / "out.parquet") == 3
        expected = list(run.trajectories())
        with pytest.raises(InfluenceError, match="cannot be written to stdout"):
            Parquet(ExporterOptions()).export(run, STDOUT)
    rows = parquet.read_table(tmp_path / "out.parquet").to_pylist()
    assert [row["mean_rating"] for row in rows] == [row["mean_rating"] for row in expected]
    assert rows[0]["messages"][1]["text"] == "hello"
    assert rows[0]["judgements"][0]["probabilities"] == [1.0, 0.0]
    assert json.loads(rows[0]["profile"]) == {"name": "Ada"}


def test_a_failed_export_leaves_nothing(filled, tmp_path):
    with RunReader(filled) as run, pytest.raises(InfluenceError, match="No such file"):
        JsonLines(ExporterOptions()).export(run, tmp_path / "none" / "out.jsonl")
    assert not list(tmp_path.glob("**/.out*"))


def test_an_export_goes_through_links_and_into_what_is_no_file(filled, tmp_path):
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "real.jsonl")
    os.mkfifo(tmp_path / "pipe")
    with ThreadPoolExecutor() as pool, RunReader(filled) as run:
        exporter = JsonLines(ExporterOptions())
        count = exporter.export(run, tmp_path / "link.jsonl")
        read = pool.submit((tmp_path / "pipe").read_text)
        exporter.export(run, tmp_path / "pipe")
        piped = read.result(10)
    assert (tmp_path / "link.jsonl").is_symlink()
    assert (tmp_path / "pipe").is_fifo()
    assert piped == (tmp_path / "real.jsonl").read_text()
    assert piped.count("\n") == count
    assert not list(tmp_path.glob(".influence*"))


def test_a_run_that_may_only_be_read_is_read(filled, not_mine):
    with RunReader(filled) as run:
        mine = run_figures(run)["rating"]
    with not_mine(filled) as copy, RunReader(copy) as run:
        assert run_figures(run)["rating"] == mine
        assert [t["messages"] for t in run.trajectories()]


def test_a_run_that_may_only_be_read_and_has_a_log_is_not_read_in_part(run, not_mine):
    with run.writer() as writer:
        whole_conversation(writer, episode())
        with not_mine(run) as copy, pytest.raises(InfluenceError, match="cannot be opened"):
            RunReader(copy)


def test_many_trajectories_come_in_order(run):
    with run.writer() as writer:
        for number in range(450):
            whole_conversation(writer, episode(f"s{number}"))
    with RunReader(run) as reader:
        states = [t["initial_state"] for t in reader.trajectories()]
    assert states == [f"s{number}" for number in range(450)]


def test_a_trajectory_is_read_as_it_was_at_one_moment(run, monkeypatch):
    with run.writer() as writer, RunReader(run) as reader:
        number = whole_conversation(writer, episode())
        said = len(next(reader.trajectories())["messages"])
        look = reader._by_episode

        def while_it_is_written(table, first, last):
            writer.add_message(number, call(turn=9), message(turn=9))
            return look(table, first, last)

        monkeypatch.setattr(reader, "_by_episode", while_it_is_written)
        (trajectory,) = reader.trajectories()
        assert len(trajectory["messages"]) == said


def test_a_whole_run_has_no_problems(filled):
    assert check_run(filled) == []


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        ("DELETE FROM episode WHERE id = 1", "rows of message belong to no conversation"),
        ("DELETE FROM trajectory WHERE episode_id = 1", "1 conversations have no trajectory"),
        (
            "INSERT INTO message SELECT 99, episode_id, turn, speaker, text, state, source, finish_reason, tool_calls,"
            " tool_call_id, outcome, 0 FROM message WHERE id = 2",
            "1 turns hold a message twice",
        ),
        (
            "INSERT INTO judgement SELECT 99, episode_id, turn, role, state, choices, probabilities, mass, method, draws,"
            " expected, outcome, usable FROM judgement WHERE id = 1",
            "1 turns were judged twice",
        ),
        ("DELETE FROM message WHERE speaker = 'agent' AND episode_id = 1", "1 complete conversations lack a reply"),
        ("DELETE FROM judgement WHERE episode_id = 1", "1 complete conversations lack a rating"),
    ],
)
def test_damage_is_named(filled, damage, says):
    connection = sqlite3.connect(filled.database)
    connection.execute(damage)
    connection.commit()
    connection.close()
    assert any(says in problem for problem in check_run(filled))


def shard(run, name: str):
    return RunWriter(run.path / f"run-{name}.db", name)


def test_shards_are_merged_once(run):
    with run.writer() as writer:
        whole_conversation(writer, episode("a"))
        writer.open_episode(episode("b"), opening())
    with shard(run, "1") as writer:
        whole_conversation(writer, episode("a"))
        whole_conversation(writer, episode("b"))
        whole_conversation(writer, episode("c"))
    assert merge_shards(run) == 2
    assert merge_shards(run) == 0
    assert check_run(run) == []
    with RunReader(run) as reader:
        assert [(t["initial_state"], t["status"]) for t in reader.trajectories()] == [
            ("a", "complete"), ("b", "complete"), ("c", "complete")]  # fmt: skip


def test_a_shard_of_an_older_version_is_brought_up_to_date(run):
    with run.writer() as writer:
        whole_conversation(writer, episode(sample=0))
    with shard(run, "a") as writer:
        whole_conversation(writer, episode(sample=1))
    with sqlite3.connect(run.path / "run-a.db") as db:
        db.executescript("DROP TABLE label; DROP TABLE stage; PRAGMA user_version = 2;")
    db.close()
    assert merge_shards(run) == 1
    assert check_run(run) == []


def test_a_run_is_not_merged_into_itself(run):
    with run.writer() as writer:
        whole_conversation(writer, episode())
    assert merge_shards(run, [run.database]) == 0


def test_a_shard_made_otherwise_is_refused_whole(run):
    with run.writer() as writer:
        whole_conversation(writer, episode("a"))
    with shard(run, "1") as writer:
        whole_conversation(writer, episode("b"))
        whole_conversation(writer, episode("a", seed=99))
    with pytest.raises(InfluenceError, match=r"run-1.db holds tea/a .sample 0. made with other settings"):
        merge_shards(run)
    with RunReader(run) as reader:
        assert len(list(reader.trajectories())) == 1


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 2)), max_size=12), st.permutations([0, 1, 2]))
def test_merging_depends_on_no_order(tmp_path_factory, conversations, order):
    folder = tmp_path_factory.mktemp("merge")
    run = create_run(folder / "run", manifest())
    for number in range(3):
        with shard(run, str(number)) as writer:
            for state, owner in conversations:
                if owner == number and not writer.is_finished(episode(f"s{state}").key):
                    i = writer.open_episode(episode(f"s{state}"), opening())
                    writer.finish(i, end(turns=0))
    merge_shards(run, [run.path / f"run-{number}.db" for number in order])
    with RunReader(run) as reader:
        states = [t["initial_state"] for t in reader.trajectories()]
    assert sorted(states) == sorted({f"s{state}" for state, _ in conversations})
    shutil.rmtree(folder)
