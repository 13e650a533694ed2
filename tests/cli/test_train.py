"""``influence train``: the loop as a user has it, with the scripted model and the scripted learner."""

import io
import json

import pytest
from rich.console import Console

from influence_cli.cli.train import FLAGS
from influence_cli.cli.training_tables import iterations_table
from influence_cli.schemas.configs import TrainConfig
from influence_cli.settings import setting_names
from influence_cli.store.check import check_run
from influence_cli.store.reader import RunReader
from influence_cli.store.run_directory import open_run
from influence_cli.training.adapters import adapter_digest


def test_the_agent_learns_what_the_rater_likes_on_people_it_never_met(trained):
    rewards = [row["heldout"]["reward"]["mean"] for row in trained["iterations"]]
    assert len(rewards) == 4
    assert rewards[0] + 2 < rewards[3]
    assert rewards[0] < rewards[2]


def test_the_agent_is_one_row_of_calls_whatever_was_on_top_of_it_with_iterations_below(trained, influence):
    document = influence("runs", "show", "made", "--json").document
    (agent,) = [row for row in document["calls"] if row["role"] == "agent"]
    assert (agent["model"], agent["adapters"]) == ("scripted:demo", 3)
    by_iteration = document["agent_calls"]
    assert [row["iteration"] for row in by_iteration] == [0, 1, 2, 3]
    assert [row["model"].partition("@")[2].rpartition("/")[2] for row in by_iteration] == ["", "1", "2", "3"]
    for figure in ("calls", "prompt_tokens", "completion_tokens"):
        assert sum(row[figure] for row in by_iteration) == agent[figure]
    shown = influence("runs", "show", "made").stdout
    assert shown.count("\nagent (3) ") == 1
    below = shown.partition("agent in ")[2].splitlines()[2:]
    assert [line.split()[0] for line in below if line.strip()] == ["0", "1", "2", "3"]
    report = influence("report", "made", "--md").stdout
    assert "scripted:demo with 3 adapters" in report


def test_a_control_that_learns_at_random_does_not(train, trained):
    control = train("--random", "--out", "control", "--json").document
    last = [found["iterations"][-1]["heldout"]["reward"]["mean"] for found in (trained, control)]
    assert last[1] < last[0] - 2


def test_training_never_sees_held_out_people(trained, place):
    with RunReader(open_run(place / "made")) as run:
        learnt = {(row["split"], row["iteration"]) for _, row in run.numbered() if row["split"] == "train"}
        splits = {}
        for _, t in run.numbered():
            splits.setdefault(t["split"], set()).add((t["scenario"], t["initial_state"]))
    assert learnt == {("train", 0), ("train", 1), ("train", 2)}
    assert splits["train"] & splits["heldout"] == set()
    for iteration in range(3):
        for line in (place / f"made/training/{iteration}/rows.jsonl").read_text().splitlines():
            row = json.loads(line)
            assert (row["scenario"], row["initial_state"]) in splits["train"]


def test_held_out_conversations_differ_by_the_agent_alone(trained, place):
    with RunReader(open_run(place / "made")) as run:
        asked = {}
        for _, t in run.numbered(split="heldout"):
            asked.setdefault(t["iteration"], set()).add((t["scenario"], t["initial_state"], t["population"], t["seed"]))
    assert set(asked) == {0, 1, 2, 3}
    assert all(each == asked[0] for each in asked.values())


def test_the_report_stands_in_runs_show_and_at_the_end(influence, train, place):
    answer = train("--out", "made")
    assert "held-out (95 %)" in answer.stdout
    shown = influence("runs", "show", "made")
    assert "held-out (95 %)" in shown.stdout
    figures = influence("runs", "show", "made", "--json").document
    assert [row["iteration"] for row in figures["iterations"]] == [0, 1, 2, 3]
    first = figures["iterations"][0]
    assert first["stages"]["select"]["rows"] == first["stages"]["train"]["rows"] > 0
    assert first["stages"]["train"]["digest"] == adapter_digest(place / "made/adapters/1")
    assert figures["iterations"][1]["stages"]["prove"]["served"] is True
    assert figures["iterations"][1]["stages"]["prove"]["difference"] > 0
    assert figures["iterations"][1]["change"]["mean"] != 0


def test_no_figure_of_the_report_is_cut_at_eighty_columns(trained):
    console = Console(width=80, record=True, file=io.StringIO())
    rows = trained["iterations"]
    rows[1]["change"] |= {"mean": -12.25, "low": -20.5, "high": 13.75}
    console.print(iterations_table(rows))
    shown = console.export_text()
    assert "…" not in shown
    assert all(figure in shown for figure in ("-12.25", "-20.50", "13.75", rows[0]["stages"]["train"]["digest"][:8]))


@pytest.mark.parametrize("wants", ["best-and-worst", "pairs", "all"])
def test_every_kind_of_rows_can_be_learnt_from(train, wants, place):
    answer = train("--algo-option", f"wants={wants}", "--samples", "8", "--top", "1/4", "--out", "made", "--json")
    assert answer.code == 0, answer.stderr
    lines = [json.loads(line) for line in (place / "made/training/0/rows.jsonl").read_text().splitlines()]
    if wants == "pairs":
        assert set(lines[0]) == {"chosen", "rejected"}
    else:
        expected = {None} if wants == "all" else {True, False}
        assert {line["desirable"] for line in lines} == expected


def test_conversations_that_nobody_could_veto_are_counted(influence, tiny_folder, script):
    mute = script('choices: [{role: veto, weights: {"1": 1}, mass: 0.1}]', "mute.yaml")
    asked = ("--env", tiny_folder, "-m", "scripted:demo", "--algo", "scripted", "--samples", "4", "--iterations", "1")
    answer = influence("train", *asked, "--veto", mute, "--out", "made")
    assert answer.code == 0, answer.stderr
    assert "conversations have no usable veto" in answer.stderr
    again = influence("train", *asked, "--no-veto", "--out", "more")
    assert "usable veto" not in again.stderr


def test_learning_from_all_selects_nothing_and_counts_what_has_a_veto(influence, tiny_folder, script):
    harmful = script('choices: [{role: veto, weights: {"1": 1}}]', "harmful.yaml")
    asked = ("--env", tiny_folder, "-m", "scripted:demo", "--algo", "scripted", "--algo-option", "wants=all")
    answer = influence(
        "train", *asked, "--veto", harmful, "--samples", "4", "--iterations", "1", "--out", "made", "--json"
    )
    selected = answer.document["iterations"][0]["stages"]["select"]
    assert selected["vetoed"] == selected["candidates"] > 0
    assert "learns from all conversations: nothing is selected, and no veto counts" in answer.stderr


def test_measuring_every_other_iteration_always_measures_first_and_last(train):
    rows = train("--set", "evaluation.every=2", "--out", "made", "--json").document["iterations"]
    assert [row["heldout"] is not None for row in rows] == [True, False, True, True]


def test_the_agent_may_begin_with_an_adapter(train, trained, place):
    start = f"scripted:demo@{place}/made/adapters/3"
    rows = train("--agent", start, "--random", "--out", "further", "--json").document["iterations"]
    assert rows[0]["agent"] == start
    assert rows[0]["heldout"]["reward"] == trained["iterations"][3]["heldout"]["reward"]


def test_one_conversation_each_is_compared_within_its_scenario_where_no_level_is_named(train, influence, place):
    more = ("--samples", "1", "--turns", "1", "--no-veto", "--iterations", "1", "--top", "1/2")
    planned = train("--dry-run", "--json", more=more)
    assert planned.document["config"]["selection"]["level"] == "scenario"
    made = train("--out", "made", more=more)
    assert made.code == 0, made.stderr
    for answer in (planned, made):
        (told,) = [line for line in answer.stderr.splitlines() if "selection.level" in line]
        assert told.startswith("Where each initial state has one conversation, the best of a scenario are looked for")
    assert open_run(place / "made").manifest.config.selection.level == "scenario"
    again = influence("train", "--resume", "made", "--quiet")
    assert (again.code, again.stderr) == (0, "")
    assert again.stdout.startswith("Nothing is left to do.\n")


def test_several_conversations_each_keep_their_level(train):
    planned = train("--samples", "2", "--dry-run", "--json", more=("--turns", "1"))
    assert planned.document["config"]["selection"]["level"] == "initial-state"
    assert "selection.level" not in planned.stderr


def test_every_flag_sets_a_setting_that_there_is():
    known = set(setting_names(TrainConfig))
    for key in FLAGS:
        assert key in known or key.split(".")[0] in known, key


def test_a_run_is_whole_and_says_how_it_was_made(trained, place):
    assert check_run(open_run(place / "made")) == []
    manifest = open_run(place / "made").manifest
    assert isinstance(manifest.config, TrainConfig)
    assert manifest.command == "train"
    assert manifest.config.algorithm.name == "scripted"
