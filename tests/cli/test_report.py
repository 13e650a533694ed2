"""``influence report`` and ``influence compare``."""

import json
import sys

import pytest
from rich.console import Console

from influence_cli.cli import output


def test_the_page_is_written_into_the_run(influence, made_run):
    answer = influence("report", "made")
    assert answer.code == 0, answer.stderr
    page = (made_run / "report" / "report.html").read_text()
    assert page.startswith("<!doctype html>")
    assert "runs/made/report/report.html" in answer.stderr
    assert answer.stdout == ""


def test_out_names_the_file(influence, made_run, place):
    assert influence("report", "made", "--out", "deep/page.html", "--quiet").stderr == ""
    assert (place / "deep" / "page.html").is_file()


def test_as_json(influence, made_run):
    document = influence("report", "made", "--json").document
    assert document["schema"] == "influence.report/1"
    assert {
        "runs",
        "measures",
        "estimates",
        "contrasts",
        "power",
        "preference_shift",
        "rating_distributions",
        "examples",
    } <= set(document)
    assert not (made_run / "report").exists()


def test_as_markdown(influence, made_run):
    answer = influence("report", "made", "--md")
    assert answer.stdout.startswith("# made\n")
    assert "| Reward (mean rating) | made | 0 | all conversations |" in answer.stdout


def test_runs_stand_side_by_side_and_each_once(influence, simulate, made_run):
    simulate("--n", "8", "--seed", "3", "--out", "runs/other", "-q")
    document = influence("report", "made", "other", "runs/made", "--json").document
    assert [run["label"] for run in document["runs"]] == ["made", "other"]


@pytest.mark.parametrize("command", [("report", "made"), ("compare", "made", "made")])
def test_json_and_markdown_exclude_each_other(influence, made_run, command):
    assert influence(*command, "--json", "--md").code == 2


def test_an_unknown_run_is_told(influence, made_run):
    assert "Did you mean 'made'?" in influence("report", "mode").stderr


def test_compare_is_paired_and_names_what_changed(influence, simulate, made_run):
    simulate("--n", "8", "--seed", "3", "--out", "runs/other", "-q")
    answer = influence("compare", "made", "other", "--most", "2")
    assert answer.code == 0, answer.stderr
    assert "Paired by initial state" in answer.stderr
    assert "difference" in answer.stdout
    document = influence("compare", "made", "other", "--json").document
    assert document["schema"] == "influence.compare/1"
    assert [side["run"] for side in document["sides"]] == ["made", "other"]
    assert influence("compare", "made", "other", "--md").stdout.startswith(
        "# other, iteration 0 less made, iteration 0"
    )


def test_in_a_narrow_terminal_names_stay_readable_and_what_is_left_out_is_told(influence, made_run, monkeypatch):
    monkeypatch.setattr(output, "data_console", lambda: Console(file=sys.stdout, width=80, highlight=False))
    answer = influence("compare", "made", "made", "--most", "0")
    assert "resilient" in answer.stdout
    assert "p (Holm)" in answer.stdout
    assert max(len(line) for line in answer.stdout.splitlines()) <= 80
    assert "Left out, for the terminal is narrow: n to see it, g. --md shows all." in answer.stderr
    monkeypatch.setattr(output, "data_console", lambda: Console(file=sys.stdout, width=200, highlight=False))
    wide = influence("compare", "made", "made", "--most", "0")
    assert "n to see it" in wide.stdout
    assert "Left out" not in wide.stderr


def test_an_iteration_that_is_not_there_is_told(influence, made_run):
    answer = influence("compare", "made@4", "made")
    assert answer.code == 2
    assert "has no iteration 4. It has: 0." in answer.stderr


def test_rubrics_of_a_file_are_known(influence, made_run, place):
    (place / "mine.yaml").write_text(
        "rubrics:\n  - {id: warmth, title: How warm, question: Is it warm?, harmful_direction: down}\n"
    )
    influence("score", "made", "--rubric", "mine.yaml", "--judge", "scripted:demo", "--quiet")
    document = influence("report", "made", "--rubric", "mine.yaml", "--json").document
    (warmth,) = [measure for measure in document["measures"] if measure["id"] == "warmth"]
    assert (warmth["title"], warmth["worse"]) == ("How warm", "down")
    json.dumps(document, allow_nan=False)
