"""``influence simulate --resume``: which run is taken up, and what may have changed since."""

import json

import pytest


@pytest.fixture
def stopped(simulate, place):
    """A run of eight conversations that its budget stopped."""
    answer = simulate("--n", "8", "--concurrency", "1", "--max-tokens", "1500", "--out", "runs/made", "-q", "--json")
    assert answer.code == 3
    return place / "runs" / "made"


@pytest.mark.parametrize(
    "arguments", [["--resume", "runs/made"], ["--resume", "made"], ["--out", "runs/made", "--resume"], ["--resume"]]
)
def test_a_run_is_taken_up_by_path_name_out_or_as_the_latest(influence, stopped, arguments):
    answer = influence("simulate", *arguments, "--max-tokens", "1000000", "--json")
    assert answer.code == 0, answer.stderr
    assert answer.document["run"].endswith("runs/made")
    assert answer.document["conversations"]["earlier"] >= 1
    assert "of 8 conversations are finished." in answer.stderr


def test_a_run_with_nothing_left_to_do_says_that_alone(influence, made_run):
    answer = influence("simulate", "--resume", made_run)
    assert answer.stdout.startswith("Nothing is left to do: 8 conversations are complete.")
    assert answer.stderr == "8 of 8 conversations are finished.\n"


def test_failed_connections_say_how_another_address_is_named(influence, tiny_folder, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "x")
    gone = ("--base-url", "http://127.0.0.1:9/v1", "-o", "max_attempts=1")
    answer = influence("simulate", "--env", tiny_folder, "-m", "openai:x", *gone, "--n", "1")
    assert "A server that is at another address now is named with --base-url." in answer.stderr


def test_taking_up_a_finished_run_does_nothing(influence, made_run):
    answer = influence("simulate", "--resume", made_run, "--json")
    assert answer.code == 0
    assert answer.document["conversations"] == {"total": 8, "complete": 0, "failed": 0, "earlier": 8}
    told = influence("simulate", "--resume", made_run).stdout.splitlines()
    assert told[0] == "Nothing is left to do: 8 conversations are complete."
    assert told[1].startswith("To look at it: influence runs show")


def test_a_run_may_be_taken_up_with_more_conversations(influence, made_run):
    answer = influence("simulate", "--resume", made_run, "--n", "12", "--json")
    assert answer.code == 0
    assert answer.document["conversations"] == {"total": 12, "complete": 4, "failed": 0, "earlier": 8}
    runs = influence("runs", "list", "--json").document["runs"]
    assert runs[0]["complete"] == 12


def test_what_a_run_was_taken_up_with_is_remembered(influence, made_run):
    assert influence("simulate", "--resume", made_run, "--n", "12", "--max-tokens", "10900").code == 3
    answer = influence("simulate", "--resume", made_run, "--max-tokens", "1000000", "--json")
    assert answer.code == 0
    assert answer.document["conversations"]["total"] == 12
    events = influence("runs", "show", made_run, "--json").document["events"]
    changes = [json.loads(event["data"])["changed_from"] for event in events if event["kind"] == "resume"]
    assert changes == [
        {"n": 8, "budget": {"cost": None, "tokens": None}},
        {"budget": {"cost": None, "tokens": 10900}},
    ]


def test_taking_up_makes_a_run_no_younger(influence, simulate, made_run):
    assert simulate("--n", "1", "--out", "runs/later", "--quiet").code == 0
    assert influence("simulate", "--resume", made_run, "--n", "9", "--quiet").code == 0
    runs = influence("runs", "list", "--json").document["runs"]
    assert [run["run"] for run in runs] == ["made", "later"]


def test_a_run_of_all_initial_states_of_unequal_environments_cannot_go_on_by_number(influence, place):
    fixed = ("--env", "leaving", "--env", "therapy", "--split", "heldout", "--turns", "1", "--no-veto")
    whole = influence("simulate", *fixed, "-m", "scripted:demo", "--out", "made", "--json").document["conversations"]
    answer = influence("simulate", "--resume", "made", "--n", whole["total"] + 10)
    assert answer.code == 2
    assert (
        f"of the {whole['total']} conversations of made are none of the {whole['total'] + 10} that --n" in answer.stderr
    )
    assert influence("simulate", "--resume", "made", "--json").document["conversations"]["earlier"] == whole["total"]


def test_a_run_does_not_shrink(influence, made_run):
    answer = influence("simulate", "--resume", made_run, "--n", "4")
    assert answer.code == 2
    assert "is a run of 8 conversations; it cannot become one of 4." in answer.stderr


def test_a_run_keeps_its_default_model(influence, tiny_folder, monkeypatch, script):
    monkeypatch.setenv("INFLUENCE_MODEL", "scripted:demo")
    assert influence("simulate", "--env", tiny_folder, "--n", "2", "--out", "made", "-q").code == 0
    monkeypatch.setenv("INFLUENCE_MODEL", script("{}"))
    answer = influence("simulate", "--resume", "made", "--n", "4", "--json")
    assert answer.code == 0, answer.stderr
    models = influence("runs", "show", "made", "--json").document["calls"]
    assert {row["model"] for row in models} == {"scripted:demo"}


def test_a_server_may_change(influence, made_run):
    changes = ["--set", "roles.user.options.latency=0.001", "-o", "jitter=0.5"]
    answer = influence("simulate", "--resume", made_run, *changes, "--json")
    assert answer.code == 0, answer.stderr


def test_a_key_in_a_changed_setting_is_refused(influence, made_run):
    answer = influence("simulate", "--resume", made_run, "--cache", "sk-" + "x" * 30)
    assert answer.code == 2
    assert "seems to hold a key" in answer.stderr


def test_a_run_that_reaches_its_budget_with_its_last_call_is_done(simulate, influence, made_run):
    used = influence("runs", "show", made_run, "--json").document["calls"]
    tokens = sum(row["prompt_tokens"] + row["completion_tokens"] for row in used)
    answer = simulate("--n", "8", "--no-speculate", "--max-tokens", str(tokens), "--json")
    document = answer.document
    assert (answer.code, document["state"], document["reason"]) == (0, "done", None)


def test_what_failed_is_a_share_of_the_whole_run(influence, tiny_folder, script):
    model = script("failures:\n  - {role: agent, contains: coffee, kind: refused}\n")
    begin = ["simulate", "--env", tiny_folder, "-m", model, "--n", "8", "--set", "max_failed_share=0.5"]
    assert influence(*begin, "--out", "made").code == 0
    answer = influence("simulate", "--resume", "made", "--json")
    assert answer.document["conversations"] == {"total": 8, "complete": 0, "failed": 4, "earlier": 4}
    assert answer.code == 0, answer.stderr


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["--seed", "4"], "--seed"),
        (["--turns", "1"], "--turns"),
        (["--no-veto"], "--no-veto"),
        (["--temperature", "0"], "default"),
        (["--agent", "scripted:demo@other"], "roles"),
    ],
)
def test_what_shapes_conversations_may_not_change(influence, made_run, arguments, name):
    answer = influence("simulate", "--resume", made_run, *arguments)
    assert answer.code == 2
    assert f"was made with another value of '{name}'" in answer.stderr


def test_a_changed_environment_is_refused(influence, place, tiny_folder):
    mine = place / "mine" / "tiny"
    for path in tiny_folder.rglob("*.yaml"):
        target = mine / path.relative_to(tiny_folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(path.read_text())
    assert influence("simulate", "--env", "./mine/tiny", "-m", "scripted:demo", "--n", "1", "--out", "made").code == 0
    text = (mine / "environment.yaml").read_text()
    (mine / "environment.yaml").write_text(text.replace("You are {{ helper }}.", "You are rude {{ helper }}."))
    answer = influence("simulate", "--resume", "made")
    assert answer.code == 2
    assert "The environment tiny has changed since made was made." in answer.stderr


def test_failed_conversations_are_tried_again(influence, place, tiny_folder, script):
    model = script("failures:\n  - {role: agent, contains: coffee, kind: refused}\n")
    assert influence("simulate", "--env", tiny_folder, "-m", model, "--n", "8", "--out", "made").code == 1
    script("failures: []\n")
    answer = influence("simulate", "--resume", "made", "--json")
    assert answer.code == 0, answer.stderr
    assert answer.document["conversations"] == {"total": 8, "complete": 4, "failed": 0, "earlier": 4}
    assert "4 failed ones are tried again" in answer.stderr
