"""How true to life an environment is: figures, faults, budgets, and audits that are stopped and gone on with."""

import json
import signal
import subprocess
import sys

import pytest
from tests.commands import conversations
from tests.waiting import wait_until

from influence_cli.store.reader import RunReader
from influence_cli.store.run_directory import locked, open_run
from influence_cli.testing.server import serve


@pytest.fixture(scope="module")
def server():
    with serve(models=("writer",)) as running:
        yield running


def test_an_audit_judges_states_and_counts_faults(influence, tiny_folder, server):
    found = influence(
        "env", "audit", tiny_folder, "--model", "openai:writer", "--base-url", server.base_url, "--n", 6, "--turns", 2,
        "--json",
    ).document  # fmt: skip
    assert (found["states"], found["conversations"]) == (8, 6)
    assert 1.0 <= found["ratings"]["states"]["realism"] <= 5.0
    assert set(found["faults"]) == {"breaks_role", "repeats", "agrees_with_everything", "ends_too_early"}
    assert found["lowest"]["states/realism"]["where"]
    assert "worth as much as the judge" in found["worth"]
    assert found["faults"]["repeats"]["of"] == found["user_messages"]


def test_an_audit_for_people_shows_shares_and_examples(influence, tiny_folder, place):
    script = place / "script.yaml"
    script.write_text("replies: [{role: user, texts: ['As an AI I have no tea.']}]\n")
    answer = influence(
        "env", "audit", tiny_folder, "--model", f"scripted:{script}", "--n", 6, "--states", 2, "--out", "a"
    )
    assert answer.code == 0
    said = int(answer.stdout.split("Faults of the simulated user in ")[1].split()[0])
    assert said > 0
    assert f": {said} of {said} (100%)" in answer.stdout
    assert "tea/" in answer.stdout
    assert "As an AI I have no tea." in answer.stdout
    assert "worst states, realism:" in answer.stdout
    assert "influence runs show" in answer.stdout


@pytest.fixture
def audited(influence, tiny_folder, script):
    """Audit the tiny environment by a model with a script."""

    def run(text: str, *more: object):
        return influence("env", "audit", tiny_folder, "--model", script(text), "--states", 2, *more)

    return run


def test_an_audit_with_failing_judges_says_so_and_fails(audited):
    text = "failures: [{role: judge, kind: refused}]"
    answer = audited(text, "--n", 0)
    assert "4 x refused" in answer.stderr
    assert "100% of the judgements failed, more than --max-failed-share allows (10%)." in answer.stderr
    assert "realism" in answer.stdout
    assert "worth as much as the judge" in answer.stdout
    assert answer.code == 1
    assert audited(text, "--n", 0, "--max-failed-share", "1").code == 0


def test_an_audit_whose_judge_cannot_be_asked_is_one_error(audited):
    answer = audited("failures: [{role: judge, kind: auth}]", "--n", 0)
    assert (answer.code, answer.stdout) == (2, "")
    assert "script.yaml cannot be asked: " in answer.stderr
    assert [line.startswith("error: ") for line in answer.stderr.splitlines()] == [False, True]


def test_an_audit_whose_sample_cannot_be_had_judges_nothing(audited):
    answer = audited("failures: [{role: agent, kind: auth}]", "--n", 4)
    assert (answer.code, answer.stdout) == (2, "")
    assert "error: The sample cannot be had: all conversations failed alike: " in answer.stderr


def test_an_audit_of_a_sample_that_failed_in_part_ends_with_its_exit_code(audited):
    answer = audited("failures: [{role: agent, contains: coffee, kind: refused}]", "--n", 8)
    assert answer.code == 1
    assert "It is judged as it is." in answer.stderr


def test_an_audit_that_is_stopped_in_its_sample_judges_nothing_until_it_goes_on(influence, place, tiny_folder):
    command = [sys.executable, "-m", "influence_cli", "env", "audit", tiny_folder, "--out", "sample", "--n", "64"]
    command += ["-m", "scripted:demo", "-o", "latency=0.2", "--concurrency", "2", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=place) as process:
        wait_until(lambda: conversations(place / "sample" / "run.db") or process.poll() is not None)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout) == (3, ""), stderr
    told = "The sample, sample, ended early: stopped by a signal. Nothing is judged. "
    assert stderr.splitlines()[-1] == f"{told}To go on: the same command with --resume --out sample"
    answer = influence("env", "audit", tiny_folder, "--resume", "--out", "sample", "-o", "latency=0", "--json")
    assert (answer.code, answer.document["conversations"], answer.document["unasked"]) == (0, 64, 0), answer.stderr


def test_an_audit_spends_no_more_than_it_may_with_its_sample(influence, tiny_folder, place):
    asked = ("env", "audit", tiny_folder, "-m", "scripted:demo", "--turns", 1, "--concurrency", 1, "--json")
    whole = influence(*asked, "--n", 4).document
    with RunReader(open_run(place / whole["run"])) as run:
        sample = run.rows("SELECT sum(prompt_tokens + completion_tokens) FROM call")[0][0]
    answer = influence(*asked, "--n", 4, "--max-tokens", (whole["tokens"] + sample) // 2)
    assert answer.code == 3
    found = answer.document
    assert sample < found["tokens"] < whole["tokens"]
    judged = 2 * (found["states"] + found["conversations"])
    assert 0 < found["unasked"] < judged
    told = f"{found['unasked']} judgements were not asked for: the budget of "
    assert told in answer.stderr
    assert influence(*asked, "--n", 4, "--max-tokens", 10).stderr.count("is used up. Nothing is judged. To go on: ")


def test_an_audit_with_a_price_has_a_budget_in_dollars(influence, tiny_folder):
    asked = ("env", "audit", tiny_folder, "-m", "scripted:demo", "--n", 0, "--concurrency", 1, "--json")
    answer = influence(*asked, "--max-cost", "0.001")
    assert (answer.code, answer.document["cost"]) == (0, 0.0)  # what costs nothing needs no price
    answer = influence(*asked, "--max-cost", "0.001", "-m", "openai:x", "--base-url", "http://127.0.0.1:9/v1")
    assert (answer.code, answer.stdout) == (2, "")
    assert "--max-cost needs the price of openai:x" in answer.stderr
    prices = ("--set", 'prices={"scripted:demo": {prompt: 1.0, completion: 1.0}}')
    answer = influence(*asked, "--max-cost", "0.001", *prices)
    assert answer.code == 3
    assert 0.001 <= answer.document["cost"] < 0.002
    assert "the budget of $0.001 is used up." in answer.stderr


@pytest.fixture
def auditing(begin, tiny_folder):
    """Start an audit of the tiny environment, kept in ``kept``, by a slow server; wait for so many requests."""

    def start(server, *more: object, requests: int) -> subprocess.Popen:
        asked = ("env", "audit", tiny_folder, "-m", "openai:writer", "--base-url", server.base_url, "--turns", 1, *more)
        process = begin(*asked, "--concurrency", "2", "--out", "kept", "--json")
        wait_until(lambda: server.stats()["requests"] >= requests or process.poll() is not None)
        assert process.poll() is None, process.communicate()
        return process

    return start


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_keeps_what_is_judged_and_going_on_does_not_pay_again(auditing, influence, tiny_folder, number):
    with serve(latency=0.2, models=["writer"]) as server:
        process = auditing(server, "--n", 0, requests=6)
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=100)
        assert process.returncode == 3, stderr
        found = json.loads(stdout)
        assert (found["state"], found["reason"]) == ("stopped", "stopped by a signal")
        assert 0 < found["unasked"] < 16
        told = f"{found['unasked']} judgements were not asked for: stopped by a signal. "
        assert stderr.splitlines()[-1] == f"{told}To go on: the same command with --resume --out kept"
        server.configure(latency=0.0)
        asked = ("env", "audit", tiny_folder, "-m", "openai:writer", "--base-url", server.base_url, "--out", "kept")
        refused = influence(*asked, "--n", 0)
        assert (refused.code, "To go on with it: --resume --out kept." in refused.stderr) == (2, True)
        whole = influence(*asked, "--resume", "--json")
        assert (whole.code, whole.document["unasked"], whole.document["state"]) == (0, 0, "done"), whole.stderr
        assert set(server.bodies().values()) == {1}
        again = influence(*asked, "--resume", "--json")
        assert again.document == whole.document
        assert set(server.bodies().values()) == {1}


@pytest.mark.timeout(180)
def test_kill_in_the_middle_loses_no_judgement_but_those_in_flight(auditing, influence, tiny_folder):
    with serve(latency=0.1, models=["writer"]) as server:
        sample = influence(
            "simulate", "--env", tiny_folder, "-m", "openai:writer", "--base-url", server.base_url, "--turns", 1,
            "--n", 4, "--out", "kept", "-q", "--json",
        )  # fmt: skip
        assert sample.code == 0, sample.stderr
        had = server.stats()["requests"]
        process = auditing(server, "--resume", requests=had + 8)
        process.send_signal(signal.SIGSTOP)  # so that it takes no answer and asks nothing while the server is looked at
        wait_until(lambda: server.stats()["in_flight"] == 0)
        process.kill()
        process.communicate()
        server.configure(latency=0.0)
        answer = influence("env", "audit", tiny_folder, "--resume", "--out", "kept", "--json")
        assert answer.code == 0, answer.stderr
        assert (answer.document["conversations"], answer.document["unasked"]) == (4, 0)
        repeated = [count for count in server.bodies().values() if count > 1]
    assert len(repeated) <= 2  # what was in flight
    assert not any(count > 2 for count in repeated)


def test_what_earlier_sittings_took_counts_against_the_budget(influence, tiny_folder):
    asked = ("env", "audit", tiny_folder, "-m", "scripted:demo", "--n", 0, "--concurrency", 1, "--out", "a", "--json")
    first = influence(*asked, "--max-tokens", 400)
    assert first.code == 3
    again = influence(*asked, "--max-tokens", 400, "--resume")
    assert (again.code, again.document) == (3, first.document)
    more = influence(*asked, "--max-tokens", 800, "--resume").document
    assert more["tokens"] >= 800
    assert 0 < more["unasked"] < first.document["unasked"]


def test_an_audit_without_a_sample_is_not_gone_on_with_one(influence, tiny_folder):
    asked = ("env", "audit", tiny_folder, "-m", "scripted:demo", "--states", 1, "--out", "a")
    assert influence(*asked, "--n", 0).code == 0
    answer = influence(*asked, "--n", 4, "--resume")
    assert (answer.code, "a has no sample." in answer.stderr) == (2, True)
    assert influence(*asked, "--resume").code == 0


def test_two_audits_do_not_judge_in_one_folder(influence, tiny_folder, place):
    asked = ("env", "audit", tiny_folder, "-m", "scripted:demo", "--n", 0, "--states", 1, "--out", "a")
    assert influence(*asked).code == 0
    with locked(place / "a", place / "a" / "audit" / "audit.lock"):
        answer = influence(*asked, "--resume")
    assert (answer.code, "a is being written by process" in answer.stderr) == (2, True)
