"""``influence runs``."""

import io
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from influence_cli.cli import runs


def test_list_shows_runs_and_what_came_of_them(influence, made_run):
    answer = influence("runs", "list")
    assert answer.code == 0
    row = answer.stdout.splitlines()[1].split()
    assert row[:3] == ["made", "done", "8/8"]


def test_list_as_json(influence, made_run):
    document = influence("runs", "list", "--json").document
    assert document["schema"] == "influence.runs.list/1"
    (run,) = document["runs"]
    assert (run["run"], run["state"], run["complete"], run["conversations"]) == ("made", "done", 8, 8)


def test_list_of_nothing_says_so(influence):
    answer = influence("runs", "list")
    assert (answer.code, answer.stdout, answer.stderr) == (0, "", "There is no run in runs.\n")
    assert influence("runs", "list", "--json").document["runs"] == []


def test_an_unreadable_run_stands_in_the_list_with_its_problem(influence, made_run):
    shutil.copytree(made_run, made_run.parent / "later")
    manifest = made_run.parent / "later" / "run.yaml"
    manifest.write_text(manifest.read_text().replace("schema_version: 1", "schema_version: 99"))
    answer = influence("runs", "list")
    assert answer.code == 0
    assert "unreadable" in answer.stdout
    assert "made" in answer.stdout
    assert "newer version of this program" in answer.stderr
    assert influence("runs", "show", "later").code == 2


@pytest.mark.parametrize("name", ["runs/made", "made", "latest"])
def test_a_run_is_shown_by_path_name_or_as_the_latest(influence, made_run, name):
    answer = influence("runs", "show", name)
    assert answer.code == 0
    assert "made (done)" in answer.stdout
    assert "8 complete, 0 failed, 0 not finished" in answer.stdout
    for word in ("turn", "scenario", "population", "role", "coffee", "gameable", "scripted:demo"):
        assert word in answer.stdout


def test_show_as_json_has_figures_by_turn_scenario_and_population(influence, made_run):
    document = influence("runs", "show", made_run, "--json").document
    assert document["schema"].startswith("influence.runs.show/")
    assert [row["turn"] for row in document["by_turn"]] == [1, 2, 3]
    assert {row["scenario"] for row in document["by_scenario"]} == {"tiny/coffee", "tiny/tea"}
    assert sum(row["n"] for row in document["by_population"]) == document["rating"]["n"]
    assert {row["role"] for row in document["calls"]} == {"agent", "user", "preference", "transition", "veto"}


def test_failures_and_unusable_judgements_are_shown(influence, tiny_folder, script):
    model = script(
        "failures:\n  - {role: agent, contains: coffee, kind: refused}\n"
        "choices:\n  - {role: preference, weights: {'5': 1}, mass: 0.2}\n"
    )
    influence("simulate", "--env", tiny_folder, "-m", model, "--n", "8", "--out", "made", "-q")
    answer = influence("runs", "show", "made")
    assert "conversations failed: refused" in answer.stdout
    assert "unusable judgements: preference" in answer.stdout


def test_an_unknown_run_suggests_the_nearest(influence, made_run):
    answer = influence("runs", "show", "mode")
    assert (answer.code, answer.stdout) == (2, "")
    assert "Unknown run 'mode'. Did you mean 'made'?" in answer.stderr


def test_a_folder_that_is_no_run_is_told_so(influence, place):
    answer = influence("runs", "show", place)
    assert answer.code == 2
    assert "is no run: it has no run.yaml." in answer.stderr


def test_a_whole_run_is_said_to_be_whole(influence, made_run):
    answer = influence("runs", "check", "made")
    assert (answer.code, answer.stdout) == (0, "")
    assert answer.stderr == "runs/made is whole.\n"
    assert influence("runs", "check", "made", "--json").document["problems"] == []


def test_a_damaged_run_is_told_and_ends_with_one(influence, made_run):
    with sqlite3.connect(made_run / "run.db") as connection:
        connection.execute("DELETE FROM judgement WHERE rowid % 2")
    connection.close()
    answer = influence("runs", "check", "made", "--json")
    assert answer.code == 1
    assert answer.document["problems"]
    assert "runs/made has 1 problem." in influence("runs", "check", "made").stderr


def test_rm_asks_and_keeps_what_is_not_confirmed(influence, made_run):
    answer = influence("runs", "rm", "made", answers="n\n")
    assert answer.code == 0
    assert "runs/made stays." in answer.stderr
    assert made_run.exists()


def test_rm_removes_what_is_confirmed(influence, made_run):
    assert influence("runs", "rm", "made", answers="y\n").code == 0
    assert not made_run.exists()


def test_rm_asks_nothing_with_yes_and_removes_nothing_if_one_name_is_wrong(influence, made_run):
    assert influence("runs", "rm", "made", "nowhere", "--yes").code == 2
    assert made_run.exists()
    answer = influence("runs", "rm", "made", "--yes")
    assert (answer.code, answer.stdout) == (0, "")
    assert not made_run.exists()


def test_merge_takes_the_conversations_of_shards_once(influence, simulate, made_run):
    simulate("--n", "12", "--out", "runs/other", "-q")
    shutil.copy(made_run.parent / "other" / "run.db", made_run / "run-2.db")
    assert influence("runs", "merge", "made", "--json").document["conversations"] == 4
    assert influence("runs", "merge", "made").stderr == "0 conversations were taken into runs/made.\n"
    assert influence("runs", "check", "made").code == 0


def test_merge_of_a_file_that_is_not_there(influence, made_run):
    answer = influence("runs", "merge", "made", "nowhere.db")
    assert answer.code == 2
    assert "There is no file nowhere.db." in answer.stderr


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        (["--turns", "1"], "it was made with another value of 'turns'"),
        (["--seed", "5"], "it was made with another value of 'seed'"),
        (["--temperature", "0.2"], "it was made with another value of 'default'"),
        (["-m", "scripted:demo@other"], "it was made with another value of 'default'"),
    ],
)
def test_merge_refuses_the_database_of_another_run(influence, simulate, made_run, changes, why):
    assert simulate("--n", "12", "--out", "runs/other", "-q", *changes).code == 0
    answer = influence("runs", "merge", "made", "runs/other/run.db")
    hint = "Merge only shards of one run; `influence compare` sets runs side by side."
    assert answer.stderr == f"error: runs/other/run.db is of another run than runs/made: {why}. {hint}\n"
    assert answer.code == 2
    assert influence("runs", "show", "made", "--json").document["conversations"]["complete"] == 8


def test_merge_refuses_conversations_of_another_model_where_no_manifest_tells_and_takes_none(
    influence, simulate, made_run
):
    for name, model in (("same", "scripted:demo"), ("other", "scripted:demo@other")):
        simulate("--n", "12", "--out", f"runs/{name}", "-q", "-m", model)
        shutil.copy(f"runs/{name}/run.db", f"{name}.db")
    answer = influence("runs", "merge", "made", "same.db", "other.db")
    assert "runs/made: scripted:demo@other speaks there for " in answer.stderr
    assert (answer.code, influence("runs", "merge", "made", "same.db", "--json").document["conversations"]) == (2, 4)


def test_merge_takes_a_larger_run_made_under_the_same_conditions_elsewhere(influence, made_run, place, tiny_folder):
    shutil.copytree(tiny_folder, place / "there" / "tiny")
    begin = ("simulate", "--env", "there/tiny", "-m", "scripted:demo", "-o", "latency=0", "--concurrency", "2")
    assert influence(*begin, "--n", "12", "--out", "runs/larger", "-q").code == 0
    assert influence("runs", "merge", "made", "runs/larger/run.db", "--json").document["conversations"] == 4


def test_merge_refuses_another_environment_of_the_same_name(influence, made_run, place, tiny_folder):
    shutil.copytree(tiny_folder, place / "there" / "tiny")
    scenario = next((place / "there" / "tiny" / "scenarios").glob("*.yaml"))
    scenario.write_text(scenario.read_text() + "\n")
    assert influence("simulate", "--env", "there/tiny", "-m", "scripted:demo", "--out", "runs/b", "-q").code == 0
    answer = influence("runs", "merge", "made", "runs/b/run.db")
    assert (answer.code, "the environment tiny is not the same" in answer.stderr) == (2, True)


def test_merge_of_a_file_that_holds_nothing(influence, made_run):
    Path("empty.db").touch()
    answer = influence("runs", "merge", "made", "empty.db")
    assert answer.code == 2
    assert answer.stderr == "error: empty.db holds no conversation. Name the database of a shard or of a run.\n"


def test_rm_of_one_run_under_two_names(influence, made_run):
    answer = influence("runs", "rm", "made", "runs/made", "latest", "--yes")
    assert answer.code == 0, answer.stderr
    assert not made_run.exists()


def test_a_run_with_a_name_that_is_no_utf_8_is_listed(influence, made_run):
    made_run.rename(made_run.with_name(os.fsdecode(b"m\xffde")))
    assert influence("runs", "list", "--json").document["runs"][0]["path"] == "runs/m\udcffde"
    assert influence("runs", "list").code == 0


@pytest.mark.parametrize("arguments", [["show", "made", "--json"], ["show", "made"], ["search", "made", "Grüße"]])
def test_a_terminal_without_utf_8_gets_an_answer(made_run, arguments):
    with sqlite3.connect(made_run / "run.db") as db:
        db.execute("UPDATE message SET text = 'Schöne Grüße ☕'")
        db.execute("UPDATE episode SET scenario = scenario || ' ☕'")
    db.close()
    done = subprocess.run(
        [sys.executable, "-m", "influence_cli", "runs", *arguments],
        capture_output=True,
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    if "--json" in arguments:
        assert json.loads(done.stdout)["by_scenario"][0]["scenario"].endswith(" ☕")
    else:
        assert b"\\u2615" in done.stdout


@pytest.mark.parametrize("failed", [0, 6_400])
def test_eighty_columns_hold_the_calls_of_a_large_run(failed):
    large = {"role": "preference", "calls": 640_000, "failed": failed, "retries": failed, "prompt_tokens": 234_567_890,
             "cached_tokens": 1, "completion_tokens": 40_960_000, "cost": 12_345.678, "seconds_per_call": 10.25}  # fmt: skip
    console = Console(width=80, file=io.StringIO())
    console.print(runs._calls("role", [{**large, "adapters": 0}]))
    shown = console.file.getvalue()
    for whole in ("preference", "640,000", "234,567,890", "40,960,000", "12,345.68", "10.25"):
        assert whole in shown
    assert ("6,400" in shown) == ("retries" in shown) == bool(failed)
