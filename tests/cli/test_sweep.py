"""``influence sweep``: one line for every mistake, nothing left behind, and a real sweep of real runs."""

import json
import re
import shlex
import shutil
import subprocess
import sys

import pytest

SPACE = ("--search", "strength=[0.3,0.6]")


@pytest.fixture
def sweep(influence, tiny_folder):
    def run(*arguments, bugs=False):
        base = (
            "--env",
            tiny_folder,
            "-m",
            "scripted:demo",
            "--algo",
            "scripted",
            "--samples",
            "3",
            "--set",
            "selection.fraction=1/2",
        )
        return influence("sweep", *base, *arguments, bugs=bugs)

    return run


@pytest.fixture(scope="module")
def made_once(tiny_folder, tmp_path_factory):
    """A folder with a sweep of four trials of one iteration each, and what its command said on stdout."""
    folder = tmp_path_factory.mktemp("sweeps")
    trial = [
        "--env",
        str(tiny_folder),
        "-m",
        "scripted:demo",
        "--algo",
        "scripted",
        "--samples",
        "3",
        "--iterations",
        "1",
    ]
    spaces = ["--search", "strength=[0.3,0.6]", "--search", "top=[1/3,2/3]", "--also", "harm"]
    command = [sys.executable, "-m", "influence_cli", "sweep", *trial, *spaces, "--parallel", "2", "--quiet", "--json"]
    done = subprocess.run([*command, "--out", "runs/made"], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout)


@pytest.fixture
def made_sweep(made_once, place):
    """What the command said of the sweep ``made``, a copy of which lies in the folder ``runs``."""
    folder, document = made_once
    shutil.copytree(folder / "runs", place / "runs")
    return document


def test_a_sweep_of_real_runs_from_beginning_to_end(made_sweep, influence, place):
    assert made_sweep["schema"] == "influence.sweep.show/1"
    assert (made_sweep["state"], made_sweep["searcher"], made_sweep["reason"]) == ("done", "grid", None)
    assert made_sweep["counts"]["done"] == 4
    assert [trial["parameters"] for trial in made_sweep["trials"]] == [
        {"strength": 0.3, "top": "1/3"}, {"strength": 0.3, "top": "2/3"},
        {"strength": 0.6, "top": "1/3"}, {"strength": 0.6, "top": "2/3"},
    ]  # fmt: skip
    for trial in made_sweep["trials"]:
        (run,) = trial["runs"]
        figures = influence("runs", "show", run, "--json").document
        last = figures["iterations"][-1]
        assert trial["values"][0]["value"] == last["heldout"]["reward"]["mean"]
        assert trial["values"][0]["low"] == last["heldout"]["reward"]["low"]
        assert trial["values"][1]["value"] == pytest.approx(last["heldout"]["veto"])
        assert trial["tokens"] == sum(row["prompt_tokens"] + row["completion_tokens"] for row in figures["calls"])
    shown = influence("sweep", "show", "made")
    assert "Importance for heldout_reward" in shown.stdout
    assert "Pareto front" in shown.stdout
    assert influence("sweep", "show", "made", "--json").document == {
        name: value for name, value in made_sweep.items() if name != "reason"
    }
    by_variance = influence("sweep", "show", "latest", "--importance", "variance", "--json").document
    assert by_variance["importance"]["method"] == "variance"

    page = influence("sweep", "report", "made")
    assert page.code == 0, page.stderr
    text = (place / "runs/made/report/report.html").read_text()
    assert "<script" not in text
    assert 'id="parallel"' in text

    nothing = influence("sweep", "--resume", "made", "--json")
    assert nothing.document["trials"] == made_sweep["trials"]


def test_the_best_trial_comes_with_a_command_that_has_it_again(made_sweep, influence):
    answer = influence("sweep", "best", "made", "--json")
    assert answer.document["schema"] == "influence.sweep.best/1"
    best = answer.document["trial"]
    assert best["number"] == made_sweep["best"]
    told = influence("sweep", "best", "made").stdout
    again = re.search(r"^again: (.*)$", told, re.MULTILINE)[1]
    program, *arguments = shlex.split(again)
    assert program == "influence"
    once_more = influence(*arguments, "--quiet", "--json")
    assert once_more.code == 0, once_more.stderr
    assert once_more.document["iterations"][-1]["heldout"]["reward"]["mean"] == best["values"][0]["value"]
    other = influence("sweep", "best", "made", "--trial", "3", "--json").document
    assert other["trial"]["number"] == 3
    assert influence("sweep", "best", "made", "--trial", "9").code == 2


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "Nothing is searched"),
        (("--search", "strenth=[1,2]"), "Unknown setting to search 'strenth'. Did you mean 'strength'"),
        (("--search", "strength=[]"), "--search strength: the list is empty."),
        (("--search", "strength=log(-1,1)"), "--search strength: a logarithm needs numbers above zero, not -1."),
        (("--search", "strength=[0.5,2.0]"), "strength: Input should be less than 1"),
        (("--search", "beta=[0.1,0.2]"), "scripted has no such option"),
        (("--search", "samples=[1,0]"), "--search samples: Input should be greater than or equal to 1."),
        (("--search", "strength"), "is not KEY=VALUE"),
        (("--search", "top=[1/2]", "--search", "selection.fraction=[1/2]"), "are one setting, selection.fraction"),
        (("--search", "seed=[1,2]", "--seeds", "2"), "seed cannot be searched too"),
        (
            (*SPACE, "--objective", "heldout_rewrad"),
            "Unknown objective 'heldout_rewrad'. Did you mean 'heldout_reward'",
        ),
        ((*SPACE, "--objective", "harm:up"), "write NAME, NAME:max or NAME:min, not 'harm:up'"),
        ((*SPACE, "--also", "harm:up"), "write NAME, NAME:max or NAME:min, not 'harm:up'"),
        ((*SPACE, "--also", "heldout_reward"), "An objective is named twice."),
        ((*SPACE, "--objective", "harm", "--set", "veto=false"), "harm is what the veto model says, and veto is off."),
        ((*SPACE, "--searcher", "gird"), "Unknown searcher 'gird'. Did you mean 'grid'"),
        ((*SPACE, "--searcher", "random"), "How many trials? Add --trials"),
        (("--search", "strength=uniform(0.1,0.9)", "--searcher", "grid"), "A grid cannot hold the range of strength"),
        ((*SPACE, "--searcher", "grid", "--pruner", "median"), "grid has no such option"),
        ((*SPACE, "--launcher", "lcoal"), "Unknown launcher 'lcoal'. Did you mean 'local'"),
        ((*SPACE, "--set", "budget.tokens=5"), "Trials share the sweep's budget."),
        ((*SPACE, "--env", "nowhere-at-all"), "nowhere-at-all"),
        ((*SPACE, "--set", "turnz=2"), "there is no setting 'turnz'"),
        ((*SPACE, "--retry-failed"), "--retry-failed is for a sweep that is taken up. Add --resume."),
        ((*SPACE, "-c", "missing.yaml"), "There is no file missing.yaml"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing_behind(sweep, place, arguments, told):
    answer = sweep(*arguments, "--out", "made")
    assert answer.code == 2
    (line,) = answer.stderr.strip().splitlines()
    assert told in line
    assert list(place.iterdir()) == []


def test_a_file_is_checked_line_by_line(influence, place):
    (place / "sweep.yaml").write_text("search:\n  lr: log(1,\ntrails: 3\n")
    answer = influence("sweep", "sweep.yaml")
    assert answer.code == 2
    assert "sweep.yaml:2:7: search.lr: 'log(1,' is no space" in answer.stderr
    assert "sweep.yaml:3:1: Unknown key 'trails'. Did you mean 'trials'?" in answer.stderr
    (place / "sweep.yaml").write_text("base: {environmets: [x]}\nsearch: {samples: [1, 2]}\n")
    assert "base.environmets: there is no setting" in influence("sweep", "sweep.yaml").stderr


def test_a_file_and_flags_come_together_and_dry_run_lists_the_grid(influence, place, tiny_folder):
    base = {
        "environments": [str(tiny_folder)],
        "default": {"model": "scripted:demo"},
        "algorithm": {"name": "scripted"},
    }
    document = {
        "base": base,
        "search": {"samples": [2, 4], "turns": "1..2"},
        "objectives": ["heldout_reward", "harm:min"],
    }
    (place / "sweep.yaml").write_text(json.dumps(document))
    answer = influence("sweep", "sweep.yaml", "--iterations", "1", "--seeds", "2", "--dry-run", "--json")
    assert answer.code == 0, answer.stderr
    told = answer.document
    assert told["schema"] == "influence.sweep.dry-run/1"
    assert (told["trials"], told["runs"], told["known"]) == (4, 8, True)
    assert [row["parameters"] for row in told["reckoned"]] == [
        {"samples": s, "turns": t} for s in (2, 4) for t in (1, 2)
    ]
    assert told["calls"] == 2 * sum(row["calls"] for row in told["reckoned"])
    assert told["reckoned"][0]["calls"] < told["reckoned"][3]["calls"]
    people = influence("sweep", "sweep.yaml", "--dry-run").stdout
    assert "4 trials, 4 runs: at most about" in people
    assert "Nothing was done." in people
    assert [path.name for path in place.iterdir()] == ["sweep.yaml"]


def test_dry_run_of_a_search_shows_its_space_and_reckons_from_draws(sweep):
    answer = sweep("--search", "strength=uniform(0.1,0.9)", "--searcher", "random", "--trials", "3", "--dry-run")
    assert answer.code == 0, answer.stderr
    assert "uniform(0.1,0.9)" in answer.stdout
    assert "3 trials, 3 runs" in answer.stdout


def test_a_folder_that_holds_something_is_not_written(sweep, made_sweep, place):
    assert "runs/made holds another sweep. To go on with it" in sweep(*SPACE, "--out", "runs/made").stderr
    other = place / "other"
    other.mkdir()
    (other / "note.txt").write_text("mine")
    answer = sweep(*SPACE, "--out", "other")
    assert (answer.code, "other is not empty" in answer.stderr) == (2, True)


def test_what_shapes_a_sweep_cannot_change_when_it_is_taken_up(made_sweep, influence):
    for arguments in (("--search", "samples=[1]"), ("--samples", "4"), ("--objective", "harm"), ("--set", "turns=1")):
        answer = influence("sweep", "--resume", "made", *arguments)
        assert (answer.code, "cannot change in a sweep" in answer.stderr) == (2, True)
    answer = influence("sweep", "--resume", "made", "--seeds", "4")
    assert (answer.code, "made with another value of 'seeds'" in answer.stderr) == (2, True)
    assert influence("sweep", "--resume", "nothing").code == 2
    assert influence("sweep", "--resume", "made", "--dry-run").code == 2
    assert influence("sweep", "show", "nothing").code == 2


def test_a_changed_environment_is_not_gone_on_with(influence, tiny_folder, place):
    shutil.copytree(tiny_folder, place / "tiny")
    asked = (
        "--env",
        "./tiny",
        "-m",
        "scripted:demo",
        "--algo",
        "scripted",
        *SPACE,
        "--samples",
        "2",
        "--iterations",
        "1",
    )
    assert influence("sweep", *asked, "--max-tokens", "500", "--out", "made", "--quiet").code == 3
    spec = place / "tiny" / "scenarios" / "tea.yaml"
    spec.write_text(spec.read_text().replace("Question 1", "Question one"))
    answer = influence("sweep", "--resume", "made", "--max-tokens", "100000")
    assert answer.code == 2
    assert "has changed since made was made" in answer.stderr


def test_without_optuna_it_searches_at_random_and_says_so(sweep, monkeypatch):
    from influence_cli.plugins import registry

    there = registry._installed
    monkeypatch.setattr(registry, "_installed", lambda name: name != "optuna" and there(name))
    space = ("--search", "strength=uniform(0.1,0.9)", "--trials", "2", "--dry-run")
    answer = sweep(*space)
    assert answer.code == 0
    assert (
        "Searching at random: Optuna is not there to learn from trials (pip install 'influence-cli[optuna]')."
        in answer.stderr
    )
    for asked in (("--searcher", "tpe"), ("--pruner", "median")):
        answer = sweep(*space, *asked)
        assert answer.code == 2
        assert "optuna is not installed. pip install 'influence-cli[optuna]'" in answer.stderr


def test_a_storage_that_cannot_be_reached_leaves_nothing_behind(sweep, place):
    pytest.importorskip("optuna")
    answer = sweep(*SPACE, "--trials", "2", "--storage", "sqlite:////no/such/folder/x.db", "--out", "made")
    (line,) = answer.stderr.strip().splitlines()
    assert answer.code == 2
    assert "The storage sqlite:////no/such/folder/x.db cannot be reached" in line
    assert list(place.iterdir()) == []
    secret = sweep(*SPACE, "--trials", "2", "--storage", "postgresql://me:secret@host/db", "--out", "made")
    assert (secret.code, "a key or a password" in secret.stderr, "secret" in secret.stderr) == (2, True, False)


def test_a_budget_of_all_trials_ends_with_exit_code_3(sweep, influence):
    answer = sweep(*SPACE, "--iterations", "1", "--max-tokens", "3000", "--out", "made", "--quiet")
    assert answer.code == 3
    assert "the budget of 3,000 tokens is used up" in answer.stderr
    document = influence("sweep", "show", "made", "--json").document
    assert document["state"] == "stopped"
    assert document["counts"]["running"] == 1
    assert 3_000 <= document["tokens"] < 8_000


def test_a_sweep_whose_trials_failed_is_over_and_they_can_be_tried_again(influence, script, tiny_folder):
    trial = (
        "--command",
        "simulate",
        "--env",
        tiny_folder,
        "-m",
        "scripted:demo",
        "--set",
        f"roles.agent.model={script('{}')}",
    )
    script("failures: [{role: agent, kind: refused}]")
    answer = influence("sweep", *trial, "--n", "2", "--search", "turns=[1,2]", "--parallel", "2", "--out", "runs/made")
    assert answer.code == 1
    told = "2 of 2 trials failed, more than the 10% that max_failed_share allows."
    assert (told in answer.stderr, "Ended early" in answer.stderr, "To go on" in answer.stderr) == (True, False, False)
    again = "influence sweep --resume runs/made --retry-failed"
    assert f"To try the failed trials again: {again}\n" in answer.stderr
    script("{}")
    mended = influence(*again.split()[1:])
    assert (mended.code, "--retry-failed" in mended.stderr) == (0, False), mended.stderr
    assert influence("sweep", "show", "made", "--json").document["counts"]["done"] == 2


def test_a_run_is_no_sweep(made_run, influence):
    answer = influence("sweep", "show", "runs/made")
    assert (answer.code, "runs/made is no sweep: it is a run" in answer.stderr) == (2, True)


def test_a_sweep_is_looked_at_by_itself(made_sweep, influence, place):
    pytest.importorskip("textual")
    answer = influence("view", "made", "made")
    assert (answer.code, "A sweep is looked at by itself." in answer.stderr) == (2, True)
    answer = influence("view", "made", "--export-svg", "seen.svg", "--size", "100x30")
    assert answer.code == 0, answer.stderr
    assert "importance" in (place / "seen.svg").read_text()
