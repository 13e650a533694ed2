"""``influence simulate``: what its flags set, what it says, and how it ends."""

import json
import shlex

import pytest
import yaml

from influence_cli import resolution
from influence_cli.cli.simulate import FLAGS
from influence_cli.schemas.configs import SimulationConfig
from influence_cli.settings import setting_names
from influence_cli.simulation.models import EMBEDDED_NOTE
from influence_cli.testing.server import serve

# -- what it says -----------------------------------------------------------------------------------------------------


def test_the_summary_says_what_was_done_and_what_comes_next(simulate):
    answer = simulate("--n", "4", "--out", "made")
    assert answer.code == 0
    first, last = answer.stdout.splitlines()
    assert first.startswith("4 conversations complete; 8 turns in 0:0")
    assert "; mean rating of conversations 5." in first
    assert last == "To look at it: influence runs show made"
    assert answer.stderr.startswith("4/4 conversations; 0 in progress; 8 turns; ")


def test_the_json_summary_is_all_of_stdout(simulate, place):
    answer = simulate("--n", "4", "--json", "--out", "made")
    document = answer.document
    assert document["schema"] == "influence.simulate/1"
    assert document["state"] == "done"
    assert document["run"] == "made"
    assert document["conversations"] == {"total": 4, "complete": 4, "failed": 0, "earlier": 0}
    assert 1 <= document["mean_rating"] <= 10
    assert set(document["roles"]) == {"agent", "user", "preference", "transition", "veto"}
    assert document["tokens"] > 0
    assert document["cost"] == 0.0
    assert document["reason"] is None
    assert document["failures"] == []


def reward(influence, run):
    """Return what the report gives as the mean reward of a run."""
    estimates = influence("report", run, "--json").document["estimates"]
    (whole,) = [e for e in estimates if e["measure"] == "reward" and (e["split"], e["by"]) == ("all", "all")]
    return whole["value"]


def test_the_mean_rating_is_the_reports_also_after_a_second_sitting(influence, simulate):
    first = simulate("--n", "6", "--json", "--out", "runs/made").document
    assert first["mean_rating"] == pytest.approx(reward(influence, "made"))
    assert first["mean_rating"] != pytest.approx(first["mean_rating_of_turns"], abs=1e-6)
    second = influence("simulate", "--resume", "made", "--n", "12", "--json").document
    assert second["mean_rating"] == pytest.approx(reward(influence, "made"))
    shown = influence("runs", "show", "made", "--json").document
    assert shown["mean_rating"] == pytest.approx(second["mean_rating"])
    heading = influence("runs", "show", "made").stdout
    told = f"{shown['mean_rating']:.2f} over complete conversations; {shown['rating']['mean']:.2f} (sd"
    assert told in " ".join(heading.split())


def test_quiet_says_nothing(simulate):
    answer = simulate("--n", "2", "--quiet", "--json")
    assert answer.stderr == ""
    assert answer.document["conversations"]["complete"] == 2


def test_without_out_a_run_gets_a_name_of_its_own(simulate, place):
    first, second = (simulate("--n", "1", "--json").document["run"] for _ in range(2))
    assert first != second
    assert sorted(f"runs/{path.name}" for path in (place / "runs").iterdir()) == sorted([first, second])


def test_prices_make_a_cost(simulate):
    prices = 'prices={"scripted:demo": {prompt: 10, completion: 20}}'
    assert simulate("--n", "1", "--set", prices, "--json").document["cost"] > 0
    assert "; $0.0" in simulate("--n", "1", "--set", prices).stdout


def test_a_cost_that_lacks_a_price_is_a_least(simulate):
    prices = 'prices={"scripted:demo": {prompt: 10, completion: 20}}'
    with serve(models=("writer",)) as server:
        answer = simulate("--n", "1", "--veto", "openai:writer", "--base-url", server.base_url, "--set", prices)
    assert "; at least $0.0" in " ".join(answer.stdout.split())


# -- settings ---------------------------------------------------------------------------------------------------------


def dry(simulate, *arguments):
    answer = simulate(*arguments, "--dry-run", "--json")
    assert answer.code == 0, answer.stderr
    return answer.document


def test_a_dry_run_shows_an_estimate_and_does_nothing(simulate, place):
    answer = simulate("--n", "8", "--dry-run")
    assert answer.code == 0
    assert answer.stdout.startswith("role ")
    assert "At most 8 conversations, 112 calls, " in answer.stdout
    assert " ".join(answer.stdout.split()).endswith("With --json: all settings. Nothing was done.")
    assert list(place.iterdir()) == []


def test_a_dry_run_as_json(simulate, place):
    document = dry(simulate, "--n", "8")
    assert document["schema"] == "influence.simulate.dry-run/1"
    assert (document["conversations"], document["calls"]) == (8, 112)
    assert document["models"]["agent"] == "scripted:demo"
    assert sum(role["calls"] for role in document["roles"].values()) == 112
    assert list(place.iterdir()) == []


GIVEN = {
    "--scenario": ("tea", ["tea"]),
    "--initial-state": ("person-1", ["person-1"]),
    "--n": ("3", 3),
    "--samples": ("2", 2),
    "--turns": ("1", 1),
    "--split": ("train", "train"),
    "--population": ("gameable=0.25,resilient=0.75", {"gameable": 0.25, "resilient": 0.75}),
    "--cue": ("stated", "stated"),
    "--seed": ("11", 11),
    "--concurrency": ("5", 5),
    "--model": ("scripted:demo", "scripted:demo"),
    "--agent": ("scripted:demo@tuned", "scripted:demo@tuned"),
    "--user": ("scripted:demo@a", "scripted:demo@a"),
    "--preference": ("scripted:demo@b", "scripted:demo@b"),
    "--transition": ("scripted:demo@c", "scripted:demo@c"),
    "--veto": ("scripted:demo@d", "scripted:demo@d"),
    "-o": ("latency=0.5", {"latency": 0.5}),
    "--temperature": ("0.5", 0.5),
    "--max-reply-tokens": ("17", 17),
    "--no-veto": (None, False),
    "--no-speculate": (None, False),
    "--max-tokens": ("1000", 1000),
    "--cache": ("answers", "answers"),
}
NEEDS_MORE = {"--env", "--base-url", "--max-cost"}
NOWHERE = "http://127.0.0.1:9/v1"
"""Flags with a test of their own."""


def value_of(config, key):
    for part in key.split("."):
        config = config[part]
    return config


@pytest.mark.parametrize("key", [key for key, flag in FLAGS.items() if flag not in NEEDS_MORE])
def test_every_flag_reaches_its_setting(simulate, key):
    text, value = GIVEN[FLAGS[key]]
    config = dry(simulate, FLAGS[key], *([] if text is None else [text]))["config"]
    assert value_of(config, key) == value


def test_every_flag_sets_a_setting_that_there_is():
    known = set(setting_names(SimulationConfig))
    for key in FLAGS:
        assert key in known or key.split(".")[0] in known, key


def test_the_budget_of_dollars_reaches_its_setting(simulate):
    prices = 'prices={"scripted:demo": {prompt: 1, completion: 2}}'
    assert dry(simulate, "--max-cost", "0.5", "--set", prices)["config"]["budget"]["cost"] == 0.5


def test_the_address_of_a_server_reaches_its_setting(influence, tiny_folder):
    answer = influence(
        "simulate", "--env", tiny_folder, "-m", "openai:x", "--base-url", "http://127.0.0.1:9/v1", "--dry-run", "--json"
    )
    assert answer.document["config"]["default"]["options"]["base_url"] == "http://127.0.0.1:9/v1"


def test_a_price_is_asked_for_only_where_a_model_may_cost_money(influence, tiny_folder, made_run):
    words, paid = "If it costs money", ("--judge", "openai:gpt-4o-mini")
    learning = ("--algo", "scripted", "--samples", "2", "--iterations", "1")
    for command, *more in (
        ("simulate", "-e", tiny_folder, "-m", "scripted:demo"),
        ("simulate", "-e", tiny_folder, "-m", "transformers:some/model"),
        ("train", "-e", tiny_folder, "-m", "scripted:demo", *learning),
        ("sweep", "-e", tiny_folder, "-m", "scripted:demo", "--search", "seed=[1,2]"),
        ("score", made_run, "--with", "harm", "--judge", "scripted:demo"),
    ):
        answer = influence(command, *more, "--dry-run", "--max-cost", "1")
        assert (answer.code, words in answer.stderr) == (0, False), answer.stderr
        assert "no price known" not in answer.stdout
        assert influence(command, *more, "--dry-run", "--json").document["cost"] == 0.0
    for command, *more in (
        ("simulate", "-e", tiny_folder, "-m", "scripted:demo", "--veto", "openai:gpt-4o-mini"),
        ("train", "-e", tiny_folder, "-m", "scripted:demo", *learning, "--preference", "openai:gpt-4o-mini"),
        ("sweep", "-e", tiny_folder, "-m", "openai:gpt-4o-mini", "--search", "seed=[1,2]"),
        ("score", made_run, "--with", "harm", *paid),
    ):
        answer = influence(command, *more, "--dry-run")
        assert f'{words}, give its price for a million tokens: --set \'prices={{"openai:gpt-4o-mini"' in answer.stderr


def test_a_dry_run_needs_no_key_and_says_how_to_give_a_price(influence, tiny_folder):
    arguments = ("simulate", "--env", tiny_folder, "-m", "openai:gpt-4o-mini", "--dry-run")
    answer = influence(*arguments)
    assert answer.code == 0, answer.stderr
    assert "no price known" in answer.stdout
    price = shlex.split(answer.stderr.partition("for a million tokens: ")[2])
    assert price[0] == "--set"
    priced = influence(*arguments, *price)
    assert (priced.code, priced.stderr) == (0, "")
    assert "no price known" not in priced.stdout
    assert influence(*arguments, *price, "--json").document["cost"] > 0


@pytest.mark.parametrize(
    ("arguments", "judges"),
    [
        ([], "preference, transition, veto: "),
        (["--agent", "scripted:demo", "--user", "scripted:demo", "--no-veto"], "preference, transition: "),
        (["--preference", "scripted:demo", "--veto", "scripted:demo"], "transition: "),
        (["--set", "judges.minimum_mass=0.5"], None),
        (["-m", "scripted:demo"], None),
    ],
)
@pytest.mark.parametrize("command", ["simulate", "train"])
def test_judges_that_are_the_embedded_model_by_default_are_told_beforehand(
    influence, tiny_folder, command, arguments, judges
):
    answer = influence(command, "--env", tiny_folder, *arguments, "--dry-run", "--json")
    assert answer.code == 0, answer.stderr
    told = [line for line in answer.stderr.splitlines() if EMBEDDED_NOTE in line]
    assert told == ([] if judges is None else [judges + EMBEDDED_NOTE])


def test_a_run_tells_who_judges_before_it_begins(simulate, monkeypatch):
    # scripted, but taken for the embedded model
    monkeypatch.setattr(resolution, "EMBEDDED_MODEL", "transformers:demo")
    answer = simulate("--n", "1", "--turns", "1")
    assert answer.code == 0, answer.stderr
    said = answer.stderr.splitlines()
    assert said[0] == f"preference, transition, veto: {EMBEDDED_NOTE}"
    assert said[-1] == EMBEDDED_NOTE
    stopped = simulate("--n", "1", "--max-tokens", "1", "--concurrency", "1", "--no-speculate")
    assert stopped.code == 3
    assert "1 turns" not in stopped.stdout
    assert EMBEDDED_NOTE not in stopped.stderr.splitlines()  # nothing was judged


def test_flags_override_a_file_that_extends_another(influence, place, tiny_folder):
    (place / "base.yaml").write_text("n: 2\nseed: 1\nturns: 1\ndefault: {model: 'scripted:demo'}\n")
    (place / "mine.yaml").write_text(f"extends: base.yaml\nseed: 2\nenvironments: ['{tiny_folder}']\n")
    answer = influence("simulate", "-c", "mine.yaml", "--turns", "3", "--set", "samples=4", "--dry-run", "--json")
    config = answer.document["config"]
    assert [config[key] for key in ("n", "seed", "turns", "samples")] == [2, 2, 3, 4]


def test_a_mistake_in_a_file_is_told_with_line_and_column(influence, place):
    (place / "mine.yaml").write_text("n: 2\ncoffee: 1\n")
    answer = influence("simulate", "-c", "mine.yaml")
    assert answer.code == 2
    assert "mine.yaml:2:1" in answer.stderr


def test_each_environment_is_used_once_however_often_it_is_named(simulate, tiny_folder):
    document = dry(simulate, "--env", tiny_folder)
    assert document["config"]["environments"] == [str(tiny_folder)]
    assert document["conversations"] == 8


def test_an_environment_is_found_in_a_folder_that_is_named(influence, tiny_folder):
    answer = influence(
        "simulate", "--env", "tiny", "--environments-dir", tiny_folder.parent, "-m", "scripted:demo", "--n", "1", "-q"
    )
    assert answer.code == 0, answer.stderr


def test_the_model_of_an_environment_variable_is_used_and_named(influence, tiny_folder, monkeypatch):
    monkeypatch.setenv("INFLUENCE_MODEL", "scripted:demo")
    answer = influence("simulate", "--env", tiny_folder, "--n", "1")
    assert answer.code == 0
    assert "Model: scripted:demo, from INFLUENCE_MODEL." in answer.stderr


# -- the user's mistakes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--env", "therpy"], "Unknown environment 'therpy'. Did you mean 'therapy'?"),
        (["-m", "scriptd:demo"], "Unknown backend 'scriptd'. Did you mean 'scripted'?"),
        (["-m", "demo"], "'demo' is not a model name. Write BACKEND:MODEL"),
        (["-m", "scripted:nothing"], "There is no scripted model 'nothing'. Use scripted:demo"),
        (
            ["-o", "latenci=1"],
            "-o latenci: none of the backends in use (scripted) has such an option. Did you mean 'latency'?",
        ),
        (["-o", "zzz=1"], "See `influence plugins show scripted`."),
        (["-o", "latency=-1"], "-o latency: Input should be greater than or equal to 0"),
        (["-o", "latency"], "-o 'latency' is not KEY=VALUE."),
        (["--population", "gamable=1"], "'gamable'. Did you mean 'gameable'?"),
        (["--population", "gameable=0.5"], "--population: fractions must not be negative and must sum to one"),
        (["--population", "gameable=x"], "--population 'gameable=x' is not NAME=FRACTION."),
        (["--scenario", "tee"], "'tee'. Did you mean 'tea'?"),
        (["--cue", "loud"], "--cue: Input should be 'stated', 'implied', 'arbitrary' or 'none'."),
        (["--split", "half"], "--split: Input should be 'all', 'train' or 'heldout'."),
        (["--n", "0"], "--n: Input should be greater than or equal to 1."),
        (["--seed", "-1"], "--seed: Input should be greater than or equal to 0."),
        (["--set", "juges.minimum_mass=1"], "there is no setting 'juges'. Did you mean 'judges.minimum_mass'?"),
        (["--set", "seed"], "--set 'seed' is not KEY=VALUE."),
        (["-m", "openai:x", "--base-url", NOWHERE, "--max-cost", "1"], "--max-cost needs the price of openai:x"),
        (["-c", "nowhere.yaml"], "There is no file nowhere.yaml."),
        (["-m", "openai:gpt-4o"], "OPENAI_API_KEY"),
        (["somewhere"], "Unexpected argument 'somewhere'. To take up a run: --resume somewhere."),
        (["--environments-dir", "nowhere"], "--environments-dir nowhere is no folder."),
        (["--resume"], "There is no run in runs."),
        (["--resume", "nowhere"], "Unknown run 'nowhere'."),
    ],
)
def test_a_mistake_is_told_with_its_mend_and_leaves_nothing_behind(simulate, place, arguments, said):
    answer = simulate("--n", "2", *arguments)
    assert answer.code == 2
    assert answer.stdout == ""
    assert answer.stderr.startswith("error: ")
    assert answer.stderr.count("\n") == 1
    assert said in answer.stderr
    assert list(place.iterdir()) == []


def test_no_environment_is_told_how_to_name_one(influence):
    answer = influence("simulate", "-m", "scripted:demo")
    assert answer.code == 2
    assert "No environment is named. Add --env therapy" in answer.stderr


def test_a_directory_that_holds_something_is_not_written_into(simulate, place):
    (place / "mine").mkdir()
    (place / "mine" / "thesis.tex").write_text("x")
    answer = simulate("--n", "1", "--out", "mine")
    assert (answer.code, [path.name for path in (place / "mine").iterdir()]) == (2, ["thesis.tex"])
    assert "mine is not empty. Name another directory." in answer.stderr


def test_a_run_is_not_begun_over_another(simulate, made_run):
    answer = simulate("--n", "1", "--out", made_run)
    assert answer.code == 2
    assert f"--resume --out {made_run}" in answer.stderr


# -- budgets and failures ---------------------------------------------------------------------------------------------


def test_a_budget_of_tokens_stops_resumably_and_a_larger_one_goes_on(simulate, influence):
    stopped = simulate("--n", "8", "--concurrency", "1", "--max-tokens", "1500", "--out", "made", "--json")
    assert stopped.code == 3
    assert stopped.document["state"] == "stopped"
    assert stopped.document["reason"] == "the budget of 1,500 tokens is used up"
    assert 1500 <= stopped.document["tokens"] < 2500
    again = influence("simulate", "--resume", "made", "--json")
    assert again.code == 3, "the same budget is used up already"
    done = influence("simulate", "--resume", "made", "--max-tokens", "1000000", "--json")
    assert done.code == 0
    counts = done.document["conversations"]
    assert counts["complete"] + counts["earlier"] == counts["total"] == 8


def test_a_budget_of_dollars_stops_resumably(simulate):
    prices = 'prices={"scripted:demo": {prompt: 1000, completion: 1000}}'
    answer = simulate("--n", "8", "--concurrency", "1", "--max-cost", "1.5", "--set", prices, "--out", "made")
    assert answer.code == 3
    assert "Ended early: the budget of $1.5 is used up." in answer.stderr
    assert "To go on: influence simulate --resume made" in answer.stdout


def test_failures_beyond_the_allowed_share_end_with_one(influence, tiny_folder, script):
    model = script("failures:\n  - {role: agent, contains: coffee, kind: refused}\n")
    arguments = ("simulate", "--env", tiny_folder, "-m", model, "--n", "8")
    answer = influence(*arguments)
    assert answer.code == 1
    assert "4 x agent: refused (last: The script lets this call fail (refused).)" in answer.stderr
    assert "4 of 8 conversations failed, more than the 10% that max_failed_share allows." in answer.stderr
    assert "Ended early" not in answer.stderr
    assert "To try the failed ones again: influence simulate --resume" in answer.stdout
    assert influence("runs", "list", "--json").document["runs"][0]["state"] == "failed"
    allowed = influence(*arguments, "--set", "max_failed_share=0.5", "--json")
    assert allowed.code == 0
    assert allowed.document["state"] == "done"
    assert allowed.document["failures"] == [{"role": "agent", "kind": "refused", "count": 4}]


@pytest.mark.parametrize(("kind", "code", "ended"), [("auth", 2, 3), ("refused", 1, 20)])
def test_all_failing_alike_stops_with_the_reason(influence, tiny_folder, script, kind, code, ended):
    model = script(f"failures:\n  - {{kind: {kind}}}\n")
    answer = influence("simulate", "--env", tiny_folder, "-m", model, "--n", "200", "--concurrency", "1", "--json")
    assert answer.code == code
    assert answer.document["reason"] == f"all conversations failed alike: The script lets this call fail ({kind})"
    assert answer.document["conversations"]["failed"] == ended


def test_a_key_that_is_refused_is_the_users_mistake_even_in_a_single_conversation(influence, tiny_folder, script):
    model = script("failures:\n  - {kind: auth}\n")
    assert influence("simulate", "--env", tiny_folder, "-m", model, "--n", "1").code == 2


def test_unusable_judgements_are_counted_and_told(influence, tiny_folder, script):
    model = script("choices:\n  - {role: preference, weights: {'5': 1}, mass: 0.2}\n")
    answer = influence("simulate", "--env", tiny_folder, "-m", model, "--n", "2", "--turns", "1")
    assert "judgements of preference were unusable and enter no figure." in answer.stderr
    assert "mean rating" not in answer.stdout


# -- taking up --------------------------------------------------------------------------------------------------------


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


HUGE = "99999999999999999999"


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["--n", HUGE], "--n"),
        (["--samples", HUGE], "--samples"),
        (["--seed", HUGE], "--seed"),
    ],
)
def test_numbers_that_nothing_can_count_are_one_line(simulate, arguments, name):
    answer = simulate("--dry-run", *arguments)
    assert (answer.code, answer.stdout) == (2, "")
    assert answer.stderr.startswith(f"error: {name}")
    assert answer.stderr.count("\n") == 1


def test_the_largest_number_of_conversations_is_estimated(simulate):
    answer = simulate("--dry-run", "--n", str(2**63 - 1), "--json")
    assert (answer.code, answer.document["conversations"]) == (0, 2**63 - 1)


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


def test_what_a_run_was_made_with_stands_in_its_manifest(made_run, tiny_folder):
    manifest = yaml.safe_load((made_run / "run.yaml").read_text())
    assert manifest["config"]["n"] == 8
    assert manifest["config"]["environments"] == [str(tiny_folder)]
    assert manifest["models"]["agent"] == "scripted:demo"
    assert manifest["argv"][0] == "simulate"
    assert json.dumps(manifest["versions"])
