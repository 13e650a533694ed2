"""``influence score``: what is asked, what is shown, and how it ends."""

import pytest

from influence_cli.testing.server import serve

from .conftest import JUDGE, rows

NOWHERE = "http://127.0.0.1:9/v1"


def test_without_names_core_rubrics_and_what_needs_no_judge(influence, made_run):
    answer = influence("score", made_run, *JUDGE, "--json")
    assert answer.code == 0, answer.stderr
    found = answer.document
    assert found["schema"] == "influence.score/1"
    assert {"harm", "deception", "sycophancy"} <= set(found["rubrics"])
    assert "reply-length" in found["scorers"]
    assert found["scores"]["asked"] == 8 * len(found["rubrics"])
    assert {entry["rubric"] for entry in found["figures"]} >= {*found["rubrics"], "reply-length", "refusal"}
    again = influence("score", made_run, *JUDGE, "--json").document
    assert (again["scores"]["asked"], again["scores"]["computed"]) == (0, 0)
    assert again["figures"] == found["figures"]


def test_only_what_is_named_is_asked_and_no_model_is_loaded_for_what_is_counted(influence, made_run, monkeypatch):
    monkeypatch.setenv("INFLUENCE_MODEL", "openai:none")
    answer = influence("score", made_run, "--with", "lexical-diversity:window=10,refusal", "--json")
    assert answer.code == 0, answer.stderr
    assert (answer.document["judges"], answer.document["rubrics"]) == ([], [])
    hashes = rows(made_run, "SELECT DISTINCT rubric_hash FROM score ORDER BY 1")
    assert len(hashes) == 2
    assert hashes[0][0].count("/") == 2  # settings other than usual are named


def test_a_run_without_a_complete_conversation_says_what_to_do_before_any_model_is_loaded(
    influence, tiny_folder, script, monkeypatch
):
    model = script("failures: [{kind: refused}]")
    influence("simulate", "--env", tiny_folder, "-m", model, "--n", "3", "--out", "runs/early", "--quiet")
    monkeypatch.setenv("INFLUENCE_MODEL", "openai:none")
    for more in ((), ("--dry-run",), ("--with", "refusal")):
        answer = influence("score", "early", *more)
        assert (answer.code, answer.stdout) == (2, "")
        told = "runs/early has no complete conversation to score: 0 not finished, 3 failed."
        assert " ".join(answer.stderr.split()).endswith(f"{told} Go on with it: influence simulate --resume runs/early")


def test_calls_of_judges_are_kept_with_their_cost_and_beside_the_simulations_own(influence, made_run):
    prices = "prices={'scripted:demo': {prompt: 1, completion: 1}}"
    before = influence("runs", "show", made_run, "--json").document["calls"]
    found = influence("score", made_run, "--with", "harm", *JUDGE, "--set", prices, "--json").document
    assert found["calls"]["calls"] == 8
    assert found["calls"]["cost"] > 0
    after = influence("runs", "show", made_run, "--json").document["calls"]
    judge = next(entry for entry in after if entry["role"] == "judge")
    assert judge["cost"] == pytest.approx(found["calls"]["cost"])
    assert [entry for entry in after if entry["role"] != "judge"] == before


def test_several_judges_are_compared(influence, made_run, script):
    other = script("choices: [{weights: {'2': 1, '9': 1}}]")
    answer = influence("score", made_run, "--with", "harm", *JUDGE, "--judge", other)
    assert answer.code == 0, answer.stderr
    assert "Agreement of judges" in answer.stdout
    assert "kappa" in answer.stdout


def test_a_file_of_rubrics_and_a_mistake_in_it(influence, made_run, place):
    (place / "mine.yaml").write_text("rubrics: [{id: mine, question: How so?, choices: [low, high]}]")
    answer = influence("score", made_run, "--rubric", "mine.yaml", *JUDGE, "--json")
    assert answer.document["rubrics"] == ["mine"]
    (place / "mine.yaml").write_text("rubrics:\n  - {id: mine}")
    answer = influence("score", made_run, "--rubric", "mine.yaml", *JUDGE)
    assert answer.code == 2
    assert "mine.yaml:2:" in answer.stderr


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("--with", "hram"), "Did you mean 'harm'"),
        (("--method", "dice"), "Unknown method"),
        (("--debias", "colours"), "Unknown debiasing"),
        (("--control",), "Add --probes"),
        (("--with", "lexical-diversity:windw=3"), "Did you mean 'window'"),
        (("--with", "harm", "--batch", "--quiet", *JUDGE), "takes no batches"),
        (("--with", "harm", "--max-cost", "1", "--judge", "openai:x", "--base-url", NOWHERE), "needs the price"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_two(influence, made_run, arguments, problem):
    answer = influence("score", made_run, *arguments)
    assert answer.code == 2
    assert problem in answer.stderr
    assert len(answer.stderr.strip().splitlines()) == 1


def test_who_judges_and_how_many_questions_is_told_beforehand(influence, made_run):
    planned = influence("score", made_run, "--with", "harm", *JUDGE, "--dry-run", "--json").document
    (entry,) = planned["models"].values()
    first = influence("score", made_run, "--with", "harm", *JUDGE).stderr.splitlines()[0]
    assert first == f"Judge: scripted:demo. To ask: {entry['scores']:,} questions on 8 conversations."
    again = influence("score", made_run, "--with", "harm", *JUDGE).stderr.splitlines()[0]
    assert again == "Judge: scripted:demo. To ask: 0 questions on 8 conversations."


def test_a_default_judge_is_told_to_be_one(influence, made_run, monkeypatch):
    monkeypatch.setenv("INFLUENCE_MODEL", "scripted:demo")
    first = influence("score", made_run, "--with", "harm").stderr.splitlines()[0]
    assert first.startswith("Judge: scripted:demo (--judge names another). To ask: ")


def test_a_dry_run_says_what_it_takes_and_does_nothing(influence, made_run):
    answer = influence("score", made_run, "--with", "harm,whole-preference", *JUDGE, "--dry-run", "--json")
    assert answer.code == 0, answer.stderr
    (entry,) = answer.document["models"].values()
    assert (entry["scores"], entry["calls"]) == (24, 24)
    assert rows(made_run, "SELECT count(*) FROM score") == [(0,)]
    shown = influence("score", made_run, "--with", "harm", "--method", "structured", *JUDGE, "--dry-run")
    assert "Nothing was done" in shown.stdout


def test_too_many_failures_end_with_code_one_and_are_shown(influence, made_run, script):
    failing = script("failures: [{role: judge, kind: timeout, share: 0.5}]")
    answer = influence("score", made_run, "--with", "core", "--judge", failing)
    assert answer.code == 1
    assert "scores failed: timeout" in answer.stderr
    allowed = influence("score", made_run, "--with", "harm", "--judge", failing, "--max-failed-share", "1")
    assert allowed.code == 0


def test_a_failed_score_never_has_a_value_and_is_asked_again(influence, made_run, script):
    failing = script("failures: [{role: judge, kind: timeout, share: 0.5}]")
    influence("score", made_run, "--with", "core", "--judge", failing)
    assert rows(made_run, "SELECT count(*) FROM score WHERE failure NOT NULL AND (value NOT NULL OR usable)") == [(0,)]
    failed = rows(made_run, "SELECT count(*) FROM score WHERE failure NOT NULL")[0][0]
    script("choices: []")  # the same judge, mended
    answer = influence("score", made_run, "--with", "core", "--judge", failing, "--json")
    assert answer.document["scores"]["asked"] == failed
    assert answer.document["scores"]["failed"] == {}


@pytest.mark.parametrize("method", ["structured", "vote"])
def test_other_methods_over_http(influence, made_run, method):
    with serve() as server:
        answer = influence(
            "score", made_run, "--with", "harm", "--judge", "openai:test-model", "--base-url", server.base_url,
            "--method", method, "--votes", "3", "--json",
        )  # fmt: skip
    assert answer.code == 0, answer.stderr
    found = answer.document
    assert found["scores"]["failed"] == {}
    assert found["calls"]["calls"] == (8 if method == "structured" else 24)
    if method == "structured":
        assert found["scores"]["quotes_dropped"] > 0  # the test server quotes what nobody said
        assert rows(made_run, "SELECT count(*) FROM score WHERE rationale LIKE '%do not stand%'")[0][0] > 0


def test_probes_shift_and_control(influence, tiny_folder, place):
    with serve() as server:
        models = ("-m", "openai:test-model", "--base-url", server.base_url)
        made = influence("simulate", "--env", tiny_folder, "--n", "8", "--out", "runs/probed", *models, "--quiet")
        assert made.code == 0, made.stderr
        run = place / "runs" / "probed"
        calls = rows(run, "SELECT count(*) FROM call")[0][0]
        answer = influence("score", run, "--probes", "--control", "--json")
        assert answer.code == 0, answer.stderr
        found = answer.document
        assert found["control"]["complete"] == 8
        everybody = found["shifts"][0]
        assert (everybody["probe"], everybody["users"], everybody["n"], everybody["pairs"]) == ("mood", "all", 8, 8)
        difference = everybody["shift"]["value"] - everybody["control"]["value"]
        assert everybody["over_control"]["value"] == pytest.approx(difference)
        assert everybody["over_control"]["value"] != 0
        requests = server.stats()["requests"]
        again = influence("score", run, "--probes", "--control", "--json").document
        assert server.stats()["requests"] == requests
        assert again["shifts"] == found["shifts"]
        shown = influence("score", run, "--probes", "--control")
        assert "Preference shift" in shown.stdout
    stored = dict(rows(run, "SELECT rubric, count(*) FROM score GROUP BY rubric"))
    names = ("before", "after", "shift", "variation", "control-shift")
    assert stored == {f"probe:mood:{what}": 8 for what in names}
    assert rows(run, "SELECT count(*) FROM call WHERE role != 'probe'")[0][0] == calls
    control = run / "control"
    keys = "SELECT scenario, initial_state, sample, population, seed FROM episode ORDER BY 1, 2, 3"
    assert rows(control, keys) == rows(run, keys)
    assert rows(control, "SELECT count(*) FROM judgement WHERE role != 'transition'") == [(0,)]
    assert rows(run, "SELECT count(*) FROM event WHERE kind = 'control'")[0][0] == 3


def test_a_control_with_another_agent_is_refused(influence, made_run, script):
    assert influence("score", made_run, "--probes", "--control", "--json").code == 0
    answer = influence("score", made_run, "--probes", "--control", "--control-agent", script("replies: []"))
    assert answer.code == 2
    assert "remove the folder" in answer.stderr


def test_the_whole_conversation_is_rated_in_both_persons(influence, made_run):
    found = influence("score", made_run, "--with", "whole-preference", *JUDGE, "--json").document
    assert found["rubrics"] == ["preference-first-person", "preference-third-person"]
    assert rows(made_run, "SELECT role, count(*) FROM call WHERE role IN ('judge', 'probe') GROUP BY 1") == [
        ("judge", 8),
        ("probe", 8),
    ]


def test_a_batch_from_the_command_line(influence, made_run):
    with serve(batch_seconds=600.0) as server:
        command = ("score", made_run, "--with", "harm", "--judge", "openai:test-model", "--base-url", server.base_url)
        sent = influence(*command, "--batch", "--no-wait", "--json")
        assert (sent.code, sent.document["state"]) == (0, "waiting")
        assert sent.document["batches"]["submitted"] == 8
        assert "The same command collects them" in influence(*command, "--batch", "--no-wait").stderr
        server.configure(batch_seconds=0.0)
        done = influence(*command, "--batch", "--poll", "0.01", "--json")
        assert done.document["scores"]["asked"] == 8
        assert server.stats()["batches"] == 1
        refused = influence(*command, "--rubric", made_run / "none.yaml")
        assert refused.code == 2
        large = influence("score", made_run, "--with", "core", *command[4:], "--batch", "--max-tokens", "10")
        assert (large.code, "The batch may take" in large.stderr) == (2, True)


def test_rubrics_are_listed_and_shown(influence):
    found = influence("score", "rubrics", "--json").document
    assert {"harm", "veto-binary-negative"} <= {rubric["id"] for rubric in found["rubrics"]}
    assert "tool-truth" in {scorer["name"] for scorer in found["scorers"]}
    assert "whole-preference" in influence("score", "rubrics").stdout
    assert "1 = not harmful, 10 = very harmful." in influence("score", "rubrics", "harm").stdout


def test_help_is_that_of_scoring_and_names_the_others(influence):
    shown = influence("score", "--help").stdout
    assert "Usage: influence score [OPTIONS] {run}" in shown
    assert "--judge" in shown
    assert "calibrate" in shown


def test_scorers_stand_among_the_plugins(influence):
    listed = influence("plugins", "list", "--json").document["components"]
    assert ("scorer", "tool-truth") in {(each["kind"], each["name"]) for each in listed}
    assert "window" in influence("plugins", "show", "lexical-diversity").stdout


def test_a_limit_that_nothing_can_count_is_none(influence, made_run):
    answer = influence("score", made_run, "--with", "reply-length", "--limit", "99999999999999999999", "--json")
    assert answer.code == 0, answer.stderr
    assert answer.document["figures"]


def test_a_table_has_columns_of_what_was_lost_only_where_something_was(influence, made_run, script):
    sound = influence("score", "made", "--with", "harm", "--judge", "scripted:demo").stdout
    assert ("harm" in sound, "unusable" in sound, "failed" in sound) == (True, False, False)
    mute = script('choices: [{role: judge, weights: {"1": 1}, mass: 0.1}]', "mute.yaml")
    told = influence("score", "made", "--with", "harm", "--judge", mute).stdout
    assert ("unusable" in told, "failed" in told) == (True, False)
