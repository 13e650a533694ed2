"""``influence simulate``: what it says, mistakes, budgets, and how it ends."""

import json

import pytest
import yaml

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


def test_what_a_run_was_made_with_stands_in_its_manifest(made_run, tiny_folder):
    manifest = yaml.safe_load((made_run / "run.yaml").read_text())
    assert manifest["config"]["n"] == 8
    assert manifest["config"]["environments"] == [str(tiny_folder)]
    assert manifest["models"]["agent"] == "scripted:demo"
    assert manifest["argv"][0] == "simulate"
    assert json.dumps(manifest["versions"])


# -- the user's mistakes ----------------------------------------------------------------------------------------------


NOWHERE = "http://127.0.0.1:9/v1"


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
    assert "To go on: influence simulate --resume made --max-cost DOLLARS" in answer.stdout


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
