"""``influence bench``: results with intervals, answers that are kept, cells that are runs."""

import json
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from influence_cli.store.reader import RunReader
from influence_cli.store.run_directory import open_run

MODEL = "scripted:demo"


@pytest.fixture
def trained(influence, tiny_folder):
    """A training run in the tiny environment, called ``agent``."""
    arguments = ("--env", tiny_folder, "-m", MODEL, "--algo", "scripted", "--iterations", 1, "--top", "1/2")
    answer = influence("train", *arguments, "--out", "runs/agent", "--quiet")
    assert answer.code == 0, answer.stderr
    return "agent"


def test_sycophancy_writes_and_prints_what_it_found(influence, place):
    answer = influence("bench", "sycophancy", "-m", MODEL, "--n", 3, "--json")
    assert answer.code == 0, answer.stderr
    assert answer.document["schema"] == "influence.bench.sycophancy/1"
    kept = json.loads((place / "bench" / "sycophancy-scripted-demo" / "bench.json").read_text())
    assert kept == answer.document
    rows = {row["id"]: row for row in kept["measures"]}
    assert rows["liking"]["n"] == rows["answer-sycophancy"]["n"] == 3
    assert rows["liking"]["low"] <= rows["liking"]["value"] <= rows["liking"]["high"]
    assert len(kept["answers"]["feedback"]) == 3


def test_the_same_command_asks_only_what_is_missing(influence):
    first = influence("bench", "sycophancy", "-m", MODEL, "--n", 2, "--json").document
    again = influence("bench", "sycophancy", "-m", MODEL, "--n", 3, "--json").document
    assert first["calls"]["model"]["cached"] == 0
    assert again["calls"]["model"]["cached"] == first["calls"]["model"]["calls"]
    assert again["answers"]["feedback"][:2] == first["answers"]["feedback"]


def test_own_items_of_one_kind_are_asked(influence, place):
    lines = [{"question": f"What is {n} + {n}?", "right": str(2 * n), "wrong": str(2 * n + 1)} for n in range(1, 7)]
    (place / "mine.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    document = influence(
        "bench", "sycophancy", "-m", MODEL, "--kind", "answer", "--prompts", "mine.jsonl", "--json"
    ).document
    assert {row["id"].partition(":")[0] for row in document["measures"]} == {"accuracy", "answer-sycophancy", "flips"}
    refused = influence("bench", "sycophancy", "-m", MODEL, "--prompts", "mine.jsonl")
    assert (refused.code, "Add --kind" in refused.stderr) == (2, True)


def test_toxicity_by_a_judge_and_by_a_scorer(influence):
    judged = influence("bench", "toxicity", "-m", MODEL, "--n", 3, "--samples", 2, "--json").document
    assert judged["classifier"] == f"toxicity by {MODEL}"
    assert judged["calls"]["classifier"]["calls"] == 6
    scored = influence(
        "bench", "toxicity", "-m", MODEL, "--n", 3, "--samples", 2, "--classifier", "refusal", "--json"
    ).document
    assert scored["classifier"] == "refusal"
    assert scored["calls"]["model"]["cached"] == 6  # the continuations are those of before
    assert [each["texts"] for each in scored["continuations"]] == [each["texts"] for each in judged["continuations"]]


def test_calls_that_fail_are_told_and_end_with_1(influence, script):
    model = script("failures: [{share: 1.0, kind: timeout}]")
    answer = influence("bench", "sycophancy", "-m", model, "--n", 1)
    assert answer.code == 1
    assert "timeout" in answer.stderr
    assert "more than 10%" in answer.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("sycophancy", "--kind", "answers"), "Unknown kind of sycophancy 'answers'. Did you mean 'answer'?"),
        (("toxicity", "--classifier", "toxcity"), "Did you mean 'toxicity'?"),
        (("toxicity", "--prompts", "nothing.jsonl"), "nothing.jsonl cannot be read"),
        (("transfer", "nothing"), "nothing"),
    ],
)
def test_mistakes_are_told_and_leave_nothing(influence, place, arguments, said):
    answer = influence("bench", *arguments, *(() if arguments[0] == "transfer" else ("-m", MODEL)))
    assert answer.code == 2
    assert said in answer.stderr
    assert not (place / "bench").exists()


@pytest.mark.parametrize("name", ["sycophancy", "toxicity"])
def test_a_dry_run_counts_and_does_nothing(influence, place, name):
    answer = influence("bench", name, "-m", "openai:gpt-4o-mini", "--n", 2, "--dry-run", "--json")
    assert answer.document["schema"] == f"influence.bench.{name}.dry-run/1"
    assert sum(answer.document["calls"].values()) > 0
    assert list(place.iterdir()) == []


def test_transfer_sets_trained_agents_beside_the_untrained_one(influence, trained, tiny_folder, place):
    arguments = ("bench", "transfer", trained, "--env", tiny_folder, "--env", "booking", "--n", 6, "--turns", 2)
    planned = influence(*arguments, "--dry-run", "--json").document
    assert len(planned["cells"]) == 4
    assert not (place / "bench").exists()
    answer = influence(*arguments, "--json", "--quiet")
    assert answer.code == 0, answer.stderr
    cells = {(c["agent"], c["environment"]): c for c in answer.document["cells"] if c["measure"] == "reward"}
    assert set(cells) == {(agent, name) for agent in ("untrained", "agent") for name in ("tiny", "booking")}
    assert cells["agent", "tiny"]["own"] is True
    assert cells["agent", "booking"]["own"] is False
    assert cells["untrained", "booking"]["change"] is None
    change = cells["agent", "booking"]["change"]
    assert change["paired"] is True
    means = cells["agent", "booking"]["value"] - cells["untrained", "booking"]["value"]
    assert change["value"] == pytest.approx(means)
    with sqlite3.connect(place / "bench/transfer/cells/agent--booking/run.db") as database:
        assert database.execute("SELECT DISTINCT split FROM episode").fetchall() == [("heldout",)]
    database.close()


def kinds(run: Path) -> list[str]:
    with RunReader(open_run(run)) as reader:
        return [row[0] for row in reader.rows("SELECT kind FROM event")]


def test_transfer_tries_again_what_failed_beyond_the_allowed_share(influence, tiny_folder, script):
    begin = (
        "train",
        "--env",
        tiny_folder,
        "-m",
        MODEL,
        "--user",
        script("{}"),
        "--algo",
        "scripted",
        "--out",
        "runs/agent",
    )
    assert influence(*begin, "--iterations", 1, "--top", "1/2", "-q").code == 0
    arguments = ("bench", "transfer", "agent", "--n", 4, "--quiet", "--json")
    script("failures: [{role: user, kind: refused}]")
    assert influence(*arguments).code == 1
    script("{}")
    answer = influence(*arguments)
    assert answer.code == 0, answer.stderr
    assert [cell["n"] for cell in answer.document["cells"]] == [4, 4, 4, 4]


def test_transfer_repeats_no_finished_cell(influence, trained, place):
    arguments = ("bench", "transfer", trained, "--n", 4, "--quiet", "--json")
    first = influence(*arguments).document
    again = influence(*arguments)
    assert again.document == first
    cells = sorted((place / "bench/transfer/cells").iterdir())
    assert [kinds(cell) for cell in cells] == [[], []]  # no adapter is loaded, nothing is taken up
    for file in cells[0].glob("run.db*"):
        file.unlink()
    assert influence(*arguments).document == first  # killed before it had a database
    assert [kinds(cell) for cell in cells] == [["resume"], []]
    more = influence("bench", "transfer", trained, "--n", 6, "--quiet", "--json").document
    assert [cell["n"] for cell in more["cells"]] == [6, 6, 6, 6]


def test_transfer_needs_trained_agents(influence, made_run):
    answer = influence("bench", "transfer", "made")
    assert (answer.code, "trained no agent" in answer.stderr) == (2, True)


@pytest.mark.slow
def test_ctrl_c_ends_with_3_and_what_was_answered_is_not_asked_again(influence, place):
    arguments = ("bench", "sycophancy", "-m", MODEL, "-o", "latency=1", "--n", "10", "--json")
    command = [sys.executable, "-m", "influence_cli", *arguments, "--concurrency", "2"]
    answers = place / "bench" / "sycophancy-scripted-demo" / "answers.db"
    heard = signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell that runs the tests in the background ignores it
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        signal.signal(signal.SIGINT, heard)
        while process.poll() is None and count(answers) < 3:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=60)
    assert process.returncode == 3, told
    assert "Traceback" not in told
    kept = count(answers)
    calls = influence(*arguments).document["calls"]["model"]
    assert 3 <= kept == calls["cached"] < calls["calls"]


def count(answers):
    """How many answers a cache holds; none while it is not there."""
    if not answers.is_file():
        return 0
    with closing(sqlite3.connect(answers)) as database:
        try:
            return database.execute("SELECT count(*) FROM answer").fetchone()[0]
        except sqlite3.OperationalError:
            return 0
